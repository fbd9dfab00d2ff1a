"""The memories of levels (a replay, or a rollout of the last decisions), and datasets for offline learning."""
