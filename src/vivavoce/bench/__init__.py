"""Benchmarks against what a user would run instead, each checking that both sides compute the same first."""
