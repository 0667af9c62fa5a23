"""The one place that runs networks over finished sets; figures read what it writes."""
