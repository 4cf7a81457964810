"""The version of the package: in a module of its own, so that a run can write it down without the library."""

__version__ = "0.1.0"
