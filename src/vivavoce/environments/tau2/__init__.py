"""τ²-bench (Barres et al. 2025, arXiv:2506.07982; MIT), after τ-bench (Yao et al. 2024, arXiv:2406.12045): an agent
of a company's service serves a customer by its tools and under its policy, and the database tells whether it was right.

The data is the official one, read from a folder; the tools over it are ours, from policy and tasks.
"""
