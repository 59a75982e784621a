"""Environments: the contract, its vectorised form, and adapters."""
