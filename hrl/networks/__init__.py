"""Neural networks: layers, encoders, distributions of actions, and normalisation."""
