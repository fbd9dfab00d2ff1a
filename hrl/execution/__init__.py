"""How functions on the path of the data run: eagerly, compiled, as CUDA graphs, or in several processes."""
