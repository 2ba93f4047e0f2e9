"""A complete server with customers, money and a past, from one command."""
