"""A level's own memory: the ring, and what rewrites its samples (hindsight, off-policy correction)."""
