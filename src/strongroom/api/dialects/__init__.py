"""The spellings of the same use cases that clients know, one module each."""
