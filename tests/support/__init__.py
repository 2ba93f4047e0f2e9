"""What several families of tests use: small worlds to act in."""
