"""A run: the trainer, what it trains, checkpoints, run folders, sweeps."""
