"""Fillings of the storage port, one folder each."""
