"""Benchmarks: `python -m benchmarks` measures units of work side by side with the textbook path; see README.md in this folder."""
