"""Supervised training: of real and of distilled images, by one loop."""
