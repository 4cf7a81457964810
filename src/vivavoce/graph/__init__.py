"""The graph of a debate: an append-only set of nodes for each problem, and readings of it."""

from vivavoce.graph.graph import Graph, read_graphs, write_graphs
from vivavoce.graph.stored import Stored, graph_file, graph_files, stored_graphs

__all__ = ["Graph", "Stored", "graph_file", "graph_files", "read_graphs", "stored_graphs", "write_graphs"]
