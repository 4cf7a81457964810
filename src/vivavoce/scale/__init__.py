"""Runs beyond one machine: the parts of a run, asked by engines that spread work over machines."""
