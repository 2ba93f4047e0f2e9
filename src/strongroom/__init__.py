"""Strongroom: a self-hosted exchange wallet on a double-entry ledger, behind a signed wallet API."""

__version__ = "0.1.0"
