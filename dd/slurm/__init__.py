"""Papers on a SLURM cluster: what is checked before jobs are submitted, one head at a time, and a safe restart.

Snakemake and its plugin submit the jobs; here is only what they leave out. Imports neither of them but where they run already.
"""
