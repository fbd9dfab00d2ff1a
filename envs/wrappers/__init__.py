"""Wrappers of environments: checks of returned values, delayed rewards, past positions, worker processes."""
