"""BFCL's conversations of several turns (Berkeley Function-Calling Leaderboard, v3 and v4; Patil et al. 2025;
Apache-2.0): a user asks one thing after the other, and the state of a few services tells whether it was done.

Questions, starting states, expected calls and the functions' documents are the official ones, read from a folder; the
services behind the functions are ours, from those documents.
"""
