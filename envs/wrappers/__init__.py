"""Wrappers of environments: checks of returned values, delayed rewards, a history of positions, worker processes."""
