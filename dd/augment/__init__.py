"""Differentiable augmentation, drawn apart from being applied. `strategies` imports no torch; the rest does."""
