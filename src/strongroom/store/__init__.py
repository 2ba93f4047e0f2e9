"""What a batch becomes: one durable commit, and the queries over what was committed."""
