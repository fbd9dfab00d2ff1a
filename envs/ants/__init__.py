"""HIRO's ant tasks, stepped in batches."""
