"""The memory of a level: a ring of transitions, or a rollout of the last decisions."""
