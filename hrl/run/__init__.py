"""Runs: the trainer and its trainees, checkpoints, run folders and sweeps."""
