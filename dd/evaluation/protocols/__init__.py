"""Protocols: how a network is trained on a set, and when it is tested. Values of one configuration, not code of their own."""
