"""Commands, the state they decide on, and the one writer that settles them in batches."""
