"""Parts that several algorithms share, and long parts of single algorithms."""
