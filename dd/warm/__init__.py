"""Jobs of a local Snakemake start in a process that has loaded torch already, instead of loading it for each of them."""

NAME = "DD_WARM"  # environment variable: the server's address, set by Snakemake's head; a person sets it to 0 to have none
PATIENCE = 60.0  # seconds that either side waits for the other before a job is agreed on; loading torch from a slow disk is among them
# What they say: somebody listens; the job's process is as its client wants it; the client will not do the job itself.
HELLO, READY, GO = b"hello", b"ready", b"go"
