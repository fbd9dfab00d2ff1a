"""HIRO's ant tasks in batches."""
