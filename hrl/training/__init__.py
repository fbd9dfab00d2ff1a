"""Training of hierarchies step by step, and of algorithms that learn in rounds of whole episodes."""
