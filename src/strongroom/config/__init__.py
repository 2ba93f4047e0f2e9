"""Settings from a file and the environment: what there is to set, how it is read, and what it comes to."""
