"""vivavoce from Python, without a recipe: ``import vivavoce as vv``.

Every function here is also a plain name of the package (``vv.debate``), loaded when it is first used. They run on an
event loop of their own, so that they work in scripts and in notebooks alike; :data:`vivavoce.aio` has the same
functions as coroutines.
"""
