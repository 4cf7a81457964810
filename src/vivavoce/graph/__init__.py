"""What was said: an append-only graph of nodes for each problem, and readings of it."""

from vivavoce.graph.graph import Graph, read_graphs, write_graphs

__all__ = ["Graph", "read_graphs", "write_graphs"]
