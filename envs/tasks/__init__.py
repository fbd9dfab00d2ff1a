"""Our own tasks, which step batches of environments with tensors on one device."""
