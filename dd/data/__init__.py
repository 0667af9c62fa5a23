"""Datasets: where they come from, their prepared form, and fast access to it."""
