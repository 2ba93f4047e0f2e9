"""The embedded store: one SQLite file, one writing thread, append-only tables in the commit."""
