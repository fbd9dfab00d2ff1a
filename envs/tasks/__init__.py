"""Our own tasks, as tensors on one device."""
