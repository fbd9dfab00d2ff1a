"""What algorithms share, and what is particular to one but too long for its file."""
