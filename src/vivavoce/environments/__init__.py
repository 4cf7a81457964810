"""Environments in which an agent acts over several turns: tools, observations, and the test whether the goal was
reached.
"""
