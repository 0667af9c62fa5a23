"""The small pipeline on a real SLURM of two pretended nodes: what is asked of the scheduler, and what becomes of jobs and heads that die."""

import json
import subprocess
from collections import Counter
from datetime import datetime
from itertools import pairwise

import pytest
import yaml
from submitter import Watched, edited, project
from toycluster import wait_until

pytestmark = pytest.mark.workflow

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def of(jobs, word):
    return [job for job in jobs if word in job["Comment"]]


def tres(job):
    return dict(item.split("=") for item in job["TRES"].split(","))


@pytest.fixture(scope="module")
def story(cluster, tmp_path_factory):
    """A run whose job is cancelled and whose head is killed; a careless restart; a careful one, with the other profile. Returns what they said.

    Beside it a project runs one of whose jobs cannot succeed.
    """
    made, broken = project(tmp_path_factory.mktemp("slurm") / "project"), project(tmp_path_factory.mktemp("broken") / "project")
    profile, other = edited(made), edited(made, "slurm-gres")
    prepared = "data/prepared/pictures/manifest.json"
    (broken.root / "pictures" / "train" / "a").mkdir(parents=True)
    (broken.root / "pictures" / "train" / "a" / "1.png").write_bytes(b"no picture")
    (broken.root / "pictures" / "test" / "a").mkdir(parents=True)
    (broken.root / "pictures" / "test" / "a" / "1.png").write_bytes(b"no picture")
    broken.config(
        f"scale: paper\npapers: [mini]\ndevice: cpu\ndatasets: {{pictures: {{source: {{kind: folder, path: {broken.root}/pictures}}}}}}\n"
    )
    with (
        Watched(made, "--profile", profile, "mini") as head,
        Watched(broken, "--profile", edited(broken), "--retries", "0", prepared) as failing,
    ):

        def running(count):
            found = of(cluster.jobs(made.root), "distill_wildcards_digits_dm")
            return found[-1] if len(found) == count and found[-1]["JobState"] == "RUNNING" else None

        wait_until(lambda: running(1), 90, f"the distillation runs: {head.said()[-3000:]}")
        cluster.ask("scancel", running(1)["JobId"])
        wait_until(lambda: running(2), 90, f"it runs again: {head.said()[-3000:]}")
        given = running(2)["GRES"]
        head.kill()
        survivors = [job["JobId"] for job in cluster.jobs(made.root) if job["JobState"] not in FINAL]
        for job in survivors:
            cluster.ask("scontrol", "suspend", job)  # it would end while somebody thinks
        made.snakemake("--profile", profile, "mini", "--unlock", timeout=60)
        careless = made.snakemake("--profile", profile, "mini", timeout=60)
        for job in survivors:
            cluster.ask("scontrol", "resume", job)
        careful = made.run("timeout", "250", "python", "-m", "dd", "restart", "wait", "--", "--profile", other, "mini")
        wait_until(lambda: failing.process.poll() is not None, 60, "the end of the run that fails")
        yield {"project": made, "jobs": cluster.jobs(made.root), "survivors": survivors, "given": given, "careless": careless,
               "careful": careful, "broken": failing.said(), "status": failing.process.returncode, "broken jobs": cluster.jobs(broken.root)}  # fmt: skip


def test_the_paper_is_finished(story):
    done = story["careful"]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    root = story["project"].root
    assert (root / "results/papers/paper/mini/claims.json").exists()
    assert story["project"].planned("mini") == {}, "at home the same rules have nothing to do: limits and partitions make no result old"
    assert not (root / ".snakemake" / "head.json").read_text(), "the last head ended in order"


def test_what_is_asked_of_the_scheduler(story):
    jobs = story["jobs"]
    assert {job["Account"] for job in jobs} == {"toy"}
    (prepare,) = of(jobs, "rule_prepare")
    assert (prepare["Partition"], prepare["TimeLimit"], prepare["NumCPUs"]) == ("cpu", "04:00:00", "1")
    assert tres(prepare)["mem"] == "16000M"
    assert "TresPerJob" not in prepare, "no GPU"
    random = of(jobs, "digits_random")[0]
    assert (random["Partition"], random["TimeLimit"], random["NumCPUs"]) == ("gpu", "08:00:00", "4"), "more than this machine has cores"
    assert tres(random)["mem"] == "20000M"
    assert random["TresPerJob"] == "gres:gpu:1"
    assert [job["TimeLimit"] for job in of(jobs, "rule_evaluate")] == ["04:00:00"] * 2
    (draw,) = of(jobs, "rule_draw_mini")
    assert (draw["Partition"], draw["TimeLimit"], tres(draw)["mem"]) == ("cpu", "01:00:00", "4000M")
    assert {job["Requeue"] for job in jobs} == {"0"}


def test_a_cancelled_job_is_retried_with_more(story):
    first, second = of(story["jobs"], "digits_dm")
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    assert (tres(first)["mem"], tres(second)["mem"]) == ("20000M", "40000M")
    assert (first["TimeLimit"], second["TimeLimit"]) == ("08:00:00", "16:00:00")


def test_what_a_job_sees(story):
    root, jobs = story["project"].root, story["jobs"]
    made = {path: json.loads(path.read_text()) for path in (root / "results" / "distilled").rglob("run.json")}
    assert len(made) == 2
    for path, run in made.items():
        (job,) = [job for job in jobs if job["JobId"] == run["slurm"]["job"]]
        assert path.parts[-4] in job["Comment"], "the job's own id"
        assert run["slurm"]["node"] == job["NodeList"]
        assert run["slurm"]["partition"] == "gpu"
        assert run["cuda_visible_devices"] in ("0", "1")
        if "digits_dm" in job["Comment"]:
            assert story["given"] == f"gpu:1(IDX:{run['cuda_visible_devices']})", "the very GPU that SLURM gave it"


def test_jobs_of_a_killed_head_are_not_met_by_their_successors(story):
    careless = story["careless"]
    assert story["survivors"]
    assert careless.returncode == 1
    assert "restart wait" in careless.stdout + careless.stderr
    assert all(job in careless.stdout + careless.stderr for job in story["survivors"])
    counted = Counter(job["Comment"] for job in story["jobs"])
    assert [name for name, count in counted.items() if count > 1] == of(story["jobs"], "digits_dm")[:1][0]["Comment"].split(), counted
    for comment in counted:
        spans = sorted(
            (datetime.fromisoformat(job["StartTime"]), datetime.fromisoformat(job["EndTime"])) for job in of(story["jobs"], comment)
        )
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), f"two at a time: {comment}"
    assert "waiting for" in story["careful"].stderr


def test_logs_are_kept_and_that_of_a_failed_job_is_shown(story):
    for job in story["jobs"]:
        if job["JobState"] == "COMPLETED":
            (log,) = (story["project"].root / "logs" / "slurm").rglob(f"{job['JobId']}.log")
            assert "1 of 1 steps (100%) done" in log.read_text()
    assert story["status"] == 1
    assert "1.png" in story["broken"], "the reason, from the job's own log"
    (job,) = story["broken jobs"]
    assert job["JobState"] == "FAILED"
    assert f"{job['JobId']}.log" in story["broken"], "and where SLURM's log is"


def test_gpus_by_gres_only(story):
    """The restart was by the other profile: what was finished by the first stayed, and what it asked for has no --gpus."""
    run = story["jobs"][-1]["JobName"]  # the head that was killed may have submitted one of the two
    jobs = [job for job in of(story["jobs"], "rule_evaluate") if job["JobName"] == run]
    assert jobs
    assert {(job.get("TresPerNode"), job.get("TresPerJob"), job["NumCPUs"]) for job in jobs} == {("gres:gpu:1", None, "4")}
    runs = [json.loads(path.read_text()) for path in (story["project"].root / "results" / "scores").rglob("*.run.json")]
    assert len(runs) == 2
    assert {run["cuda_visible_devices"] for run in runs} <= {"0", "1"}


def test_mistakes_are_named_before_anything_is_submitted(cluster, tmp_path):
    made = project(tmp_path / "project")
    made.config("scale: paper\npapers: [mini]\ndevice: cpu\ndatasets: {digits: {source: {kind: parquet, path: nowhere}}}\n")
    file = made.root / "profiles" / "slurm" / "profile.yaml"
    profile = yaml.safe_load(file.read_text())
    assert profile["retries"] == 2
    profile["set-resources"]["prepare"] |= {
        "slurm_partition": "short",
        "runtime": "4 * attempt",
    }  # 10 at most: the last attempt is looked at too
    file.write_text(yaml.safe_dump(profile))
    done = made.snakemake("--profile", "profiles/slurm", timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    late = "profiles/slurm/profile.yaml: runtime: value 12 minutes in attempt 3 (prepare): partition short allows 10"
    for word in ("'nowhere': no such folder", "'ACCOUNT'", "'CPU_PARTITION'", "'GPU_PARTITION'", late):
        assert word in said, said
    assert cluster.jobs(made.root) == []
    assert subprocess.run(["pgrep", "-f", str(made.root)], capture_output=True, timeout=10).returncode == 1, "nothing is left behind"
