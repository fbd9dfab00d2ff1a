"""Tasks of our own, as tensors on one device."""
