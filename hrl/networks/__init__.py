"""Layers, encoders and heads."""
