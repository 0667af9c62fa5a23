"""Tables, figures and the report. Reads scores and artifacts only; runs no network."""
