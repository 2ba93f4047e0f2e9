"""Chains, derivation, signing, watching and sending: how money enters and leaves."""
