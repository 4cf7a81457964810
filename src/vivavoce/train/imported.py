"""Imports all that training needs, so that a process that is forked from one with this module imports nothing.

It starts no thread of Python and asks no device, or the forks would not be safe.
"""

from vivavoce.train import magdi, on_policy, sft, tree_dpo, two_task

__all__ = ["magdi", "on_policy", "sft", "tree_dpo", "two_task"]
