"""The published methods, each a page over the rooms. ``methods/foo.py`` defines ``Options``, ``distill`` and ``plan``;
the recipe's ``method: foo`` selects it.
"""
