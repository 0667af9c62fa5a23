"""The verbs of the command line: those that rules call, and those for people."""
