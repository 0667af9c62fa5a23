"""Where the networks come from that a term looks through."""
