"""Gradients through the learning of a level or a policy: tuning, learned rewards, fast adaptation."""
