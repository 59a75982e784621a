"""Algorithms, one a file, linear from top to bottom."""
