"""Execution of the training loop's functions: eager, compiled, as CUDA graphs, or in several processes."""
