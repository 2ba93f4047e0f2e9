"""The wire: authentication, limits, dialects, replies and the description of them."""
