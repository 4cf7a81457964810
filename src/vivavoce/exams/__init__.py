"""Exams: a model on a task, votes over a debate, and the table that compares them."""
