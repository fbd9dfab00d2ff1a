"""Training of hierarchies step by step, of algorithms that learn in rounds, and of offline algorithms."""
