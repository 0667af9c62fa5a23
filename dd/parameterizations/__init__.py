"""How stored numbers become images."""
