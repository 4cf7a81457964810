"""Imports all that training needs, so that a process that is forked from one with this module imports nothing.

It starts no thread of Python and asks no device, or the forks would not be safe. What was imported is taken out of
garbage collection: a collection would go through all of it, and copy the pages that forks share.
"""

import gc

from vivavoce.train import magdi, on_policy, sft, tree_dpo, two_task

gc.collect()
gc.freeze()

__all__ = ["magdi", "on_policy", "sft", "tree_dpo", "two_task"]
