"""Hierarchical reinforcement learning."""
