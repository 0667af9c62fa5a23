"""Faults of a cluster that take minutes to be seen: jobs over their time limit, a node that dies, a controller that is away."""

import json

import pytest
from submitter import Watched, edited, project
from toycluster import wait_until

pytestmark = [pytest.mark.workflow, pytest.mark.faults, pytest.mark.slow]

PREPARED = "data/prepared/digits/manifest.json"
ITERATIONS = 1200  # of dm: more than a minute on any machine of today; a busy one needs eight
HANGS = """def prepare(args: Namespace) -> None:
    import time

    if not os.path.exists("hung"):
        open("hung", "w").close()
        time.sleep(600)
"""  # once


def finished(head, seconds):
    """Wait for the end of a Snakemake; it must be a good one."""
    wait_until(lambda: head.process.poll() is not None, seconds, f"the end of the run: {head.said()[-3000:]}")
    assert head.process.returncode == 0, head.said()[-3000:]


def distilled(made):
    """Return the distilled set of dm, as a target."""
    done = made.snakemake("-n", "mini", timeout=60)
    (found,) = {word.strip(",") for word in done.stdout.split() if "/dm/" in word and word.strip(",").endswith("/distilled.safetensors")}
    return found


def begun(cluster, made, head):
    """Wait until the distillation itself is at work, not only the Snakemake around it, which needs the controller; return its job."""

    def running():
        return [job for job in cluster.jobs(made.root) if "distill" in job["Comment"] and job["JobState"] == "RUNNING"]

    wait_until(lambda: running() and list((made.root / "logs" / "distill").rglob("*.log")), 180, f"it runs: {head.said()[-3000:]}")
    return running()[0]


def test_jobs_over_their_time_limit(cluster, tmp_path):
    """A long one stops in time, saves, and its next attempt continues; one that cannot is ended by SLURM and gets more time."""
    long, short = project(tmp_path / "long", iterations=ITERATIONS), project(tmp_path / "short")
    target = distilled(long)
    short.edit("dd/verbs/jobs.py", "def prepare(args: Namespace) -> None:\n", HANGS)
    with (
        Watched(long, "--profile", edited(long, distill={"runtime": "2 * attempt"}), "--retries", "5", target) as head,
        Watched(short, "--profile", edited(short, prepare={"runtime": "2 * attempt - 1"}), PREPARED) as other,
    ):
        finished(other, 400)
        finished(head, 900)
    jobs = [job for job in cluster.jobs(long.root) if "distill" in job["Comment"]]
    assert [job["JobState"] for job in jobs] == ["FAILED"] * (len(jobs) - 1) + ["COMPLETED"]
    assert len(jobs) >= 2
    assert [job["TimeLimit"] for job in jobs] == [f"00:{2 * attempt:02}:00" for attempt in range(1, len(jobs) + 1)]
    run = json.loads((long.root / target).with_name("run.json").read_text())
    assert run["resumed"] == len(jobs) - 1
    assert run["slurm"]["job"] == jobs[-1]["JobId"]
    assert [job["JobState"] for job in cluster.jobs(short.root)] == ["TIMEOUT", "COMPLETED"]
    assert [job["TimeLimit"] for job in cluster.jobs(short.root)] == ["00:01:00", "00:03:00"]


def test_a_node_that_dies(cluster, tmp_path):
    made = project(tmp_path / "project", iterations=100)
    target = distilled(made)
    with Watched(made, "--profile", edited(made), target) as head:
        job = begun(cluster, made, head)
        try:
            cluster.kill_node(job["NodeList"])
            finished(head, 300)
        finally:
            cluster.start_node(job["NodeList"])
    first, second = [job for job in cluster.jobs(made.root) if "distill" in job["Comment"]]
    assert (first["JobState"], second["JobState"]) == ("NODE_FAIL", "COMPLETED")
    assert first["NodeList"] != second["NodeList"]
    assert (made.root / target).exists()


def test_a_controller_that_is_away(cluster, tmp_path):
    made = project(tmp_path / "project")
    target = distilled(made)
    with Watched(made, "--profile", edited(made), target) as head:
        begun(cluster, made, head)
        cluster.stop("slurmctld")
        try:
            wait_until(lambda: "asking again about" in head.said(), 120, "its absence is noticed")
        finally:
            cluster.start_controller()
        finished(head, 240)
    (job,) = [job for job in cluster.jobs(made.root) if "distill" in job["Comment"]]
    assert job["JobState"] == "COMPLETED"
    assert (made.root / target).exists()
