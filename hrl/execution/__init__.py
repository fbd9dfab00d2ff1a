"""Execution of the training loop's functions: eagerly, compiled, as CUDA graphs, or in several processes."""
