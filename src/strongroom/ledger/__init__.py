"""Accounts, postings, entries and seals: double entry over integer amounts, pure."""
