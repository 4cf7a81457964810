"""Where users outgrow one machine: the parts of a run, asked by an engine of others that spreads work over machines."""
