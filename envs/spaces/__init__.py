"""Conversions of observation and action spaces."""
