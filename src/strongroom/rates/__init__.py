"""Where a price comes from, how old it is, and what it becomes by triangulation and spread."""
