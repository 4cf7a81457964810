"""Programs that run a package of environments in the environment that the package wants.

Each is a script of its own that imports nothing of vivavoce, so that it runs under any Python.
:mod:`vivavoce.environments.bridged` describes the requests and answers over standard input and output.
"""
