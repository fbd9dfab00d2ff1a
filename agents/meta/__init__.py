"""Algorithms whose outer level learns by gradients through the inner one's learning."""
