"""Algorithms that choose among skills or options."""
