"""The use cases, one module a noun: the command with its rule, and what prepares it."""
