"""How the schoolhouse's models were taught: lessons, training, and the measurements that decide whether they may ship.

The package needs none of this at run time: it ships the weights, the worlds and the graders (`vivavoce.schoolhouse`).
Run from the root of the repository.
"""
