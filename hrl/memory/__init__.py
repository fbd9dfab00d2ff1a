"""A level's own memory: a ring of transitions, or a rollout of the last decisions."""
