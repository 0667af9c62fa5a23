"""Terms: what an update looks at, and the scalar it descends."""
