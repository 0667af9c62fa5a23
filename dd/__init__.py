"""Distillery: dataset distillation, from raw download to paper figure."""

__version__ = "0.1.0"
