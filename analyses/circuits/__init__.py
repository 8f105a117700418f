"""Circuits: edges between components, found, ablated and measured."""
