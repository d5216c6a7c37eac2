"""Whole chains, where they run, and the embedded default."""
