"""The operator's door: a local socket that speaks the same use cases."""
