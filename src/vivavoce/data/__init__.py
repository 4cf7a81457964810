"""Graphs into training rows: pure, deterministic views. Changing a rule here issues no model call."""
