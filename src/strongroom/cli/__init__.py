"""The command line: every command of strongroom, one module a group."""
