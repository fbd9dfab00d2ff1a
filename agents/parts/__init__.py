"""Parts that algorithms share, and long parts of single algorithms."""
