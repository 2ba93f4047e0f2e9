"""Every kind of kept row, a frozen struct each, with its transitions; pure."""
