"""Gradients through the learning of a level or of a policy: tuning, learned rewards, fast adaptation."""
