"""What is said before anything is submitted, with stand-ins for SLURM's commands."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import MINI, ROOT

from dd.errors import ConfigError
from dd.plan import Job, Plan
from dd.plan.papers import Settings, load_settings
from dd.slurm import preflight
from dd.slurm.preflight import Ask, absent_files, absent_named, check_cluster, minutes, missing

SETTINGS = "AccountingStorageType   = accounting_storage/none\nMinJobAge               = 300 sec\n"
PARTITIONS = "cpu*|1-00:00:00\ngpu|2-00:00:00\nshort|10:00\nlong|infinite\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Return `say(settings, partitions)`, what scontrol and sinfo print from now on."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def say(settings=SETTINGS, partitions=PARTITIONS):
        for name, text in (("scontrol", settings), ("sinfo", partitions)):
            (folder / f"{name}.txt").write_text(text)
            (folder / name).write_text(f'#!/bin/sh\ncat "{folder}/{name}.txt"\n')
            (folder / name).chmod(0o755)
        return folder

    say()
    return say


def ask(attempt=1, rule="distill", **resources):
    return Ask(rule, attempt, {"slurm_account": "toy", "slurm_partition": "gpu", "runtime": 480, **resources})


def test_what_a_cluster_can_give_is_no_mistake(slurm):
    asks = [ask(), ask(3, runtime=1440), ask(slurm_partition="short", runtime=10), ask(slurm_partition="long", runtime=10**6)]
    assert check_cluster([*asks, Ask("draw", 1, {"runtime": 1440}), ask(slurm_partition="short,long", runtime=99)], 40) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (ask(slurm_account="ACCOUNT"), ("slurm_account", "'ACCOUNT'", "distill", "placeholder")),
        (ask(slurm_partition="GPU_PARTITION"), ("slurm_partition", "'GPU_PARTITION'")),
        (ask(slurm_partition="gpus"), ("'gpus'", "did you mean 'gpu'", "short")),
        (ask(3, slurm_partition="short", runtime=30), ("runtime: value 30", "attempt 3", "short", "allows 10")),
        (Ask("draw", 1, {"runtime": 1441}), ("1441", "partition cpu allows 1440")),
        (ask(slurm_partition="short,gpu", runtime=2881), ("2881", "allows 2880")),
        (ask(slurm_partition="GPU_PARTITION,gpu"), ("slurm_partition: value 'GPU_PARTITION'", "distill", "placeholder")),
        (ask(slurm_account="mine, ACCOUNT"), ("slurm_account: value 'ACCOUNT'", "placeholder")),
    ],
)
def test_each_mistake_is_one_line(slurm, wrong, words):
    (line,) = check_cluster([ask(), wrong], 40)
    assert all(word in line for word in words), line


def test_a_mistake_of_many_rules_is_said_once(slurm):
    lines = check_cluster([ask(attempt, f"distill_{n}", slurm_account="ACCOUNT") for n in range(9) for attempt in (1, 3)], 40)
    assert len(lines) == 1
    assert "distill_0, distill_1, distill_2 and 6 more" in lines[0]


@pytest.mark.parametrize(
    ("age", "storage", "poll", "words"),
    [
        (300, "accounting_storage/none", 40, None),
        (200, "(null)", 66, None),
        (300, "accounting_storage/none", 101, ("value 101", "300 seconds", "no accounting", "allowed: 1 to 100")),
        (300, "(null)", 101, ("no accounting", "allowed: 1 to 100")),  # a newer SLURM
        (300, "accounting_storage/slurmdbd", 101, None),  # accounting is asked, and remembers
        (150, "accounting_storage/none", 40, ("150 seconds", "ask your site", "200 or more")),  # squeue is, at last after 180 s
        (
            150,
            "accounting_storage/slurmdbd",
            40,
            ("150 seconds", "up to 180", "allowed: 51 or more"),
        ),  # squeue is, though there is accounting
        (150, "accounting_storage/slurmdbd", 51, None),
        (60, "(null)", 40, ("60 seconds", "ask your site")),
        (60, "accounting_storage/slurmdbd", 40, None),
    ],
)
def test_jobs_that_slurm_forgets_before_they_are_looked_at(slurm, age, storage, poll, words):
    slurm(f"AccountingStorageType   = {storage}\nMinJobAge               = {age} sec\n")
    lines = check_cluster([ask()], poll, "profiles/mine/profile.yaml")
    if words is None:
        assert lines == []
    else:
        (line,) = lines
        assert all(word in line for word in words), line
        assert line.startswith(f"profiles/mine/profile.yaml: slurm-init-seconds-before-status-checks: value {poll}: ")


def test_a_hidden_partition_is_one(slurm):
    folder = slurm()
    (folder / "sinfo").write_text(
        '#!/bin/sh\ncase "$*" in *--all*) echo "gpu|1-00:00:00"; echo "mine|1-00:00:00";; *) echo "gpu|1-00:00:00";; esac\n'
    )
    assert check_cluster([ask(slurm_partition="mine")], 40) == []


def test_a_machine_without_slurm_and_one_whose_controller_is_away(slurm, monkeypatch):
    folder = slurm()
    (folder / "scontrol").write_text("#!/bin/sh\necho 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2\nexit 1\n")
    (line,) = check_cluster([ask()], 40)
    assert "Unable to contact" in line
    monkeypatch.setenv("PATH", str(folder.parent / "empty"))
    lines = check_cluster([ask(slurm_account="ACCOUNT")], 40)
    assert len(lines) == 2
    assert "no SLURM" in lines[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10:00", 10), ("1:00:00", 60), ("2-00:00:00", 2880), ("1-01:30:59", 1530), ("infinite", None), ("n/a", None), ("0:30", 0)],
)
def test_time_limits_as_slurm_writes_them(text, expected):
    assert minutes(text) == expected


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a function from config.yaml's text to the plan of the small paper, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("scales", "reported", "rules"):
        if (ROOT / "workflow" / name).is_dir():
            Path("workflow").mkdir(exist_ok=True)
            Path("workflow", name).symlink_to(ROOT / "workflow" / name)
    Path("workflow/papers").mkdir(parents=True)
    Path("workflow/papers/mini.yaml").write_text(MINI)

    def made(text):
        Path("config.yaml").write_text(f"scale: paper\npapers: [mini]\n{text}\n")
        return Plan(load_settings(Path("config.yaml")), Path("workflow"))

    return made


def test_a_dataset_that_is_not_there_is_missed_only_by_those_who_need_it(plan, tmp_path):
    found = plan("datasets: {digits: {source: {kind: parquet, path: gone}}, others: {source: {kind: folder, path: gone too}}}")
    lines = missing(found, found.of(["mini"]))
    assert len(lines) == 1
    assert "config.yaml: datasets.digits" in lines[0] and "'gone': no such folder" in lines[0]
    assert missing(found, [job for job in found.of(["mini"]) if job.stage == "evaluate"]) == []
    (prepare,) = [job for job in found.of(["mini"]) if job.stage == "prepare"]
    for path in prepare.outputs:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    assert len(missing(found, [prepare])) == 1, "what will run needs it, although what it made before lies there: another path was written"
    Path("gone").mkdir()
    assert missing(found, found.of(["mini"])) == []


def test_teachers_and_generators_that_config_does_not_name(plan):
    jobs = [
        Job("teacher", ["data/teachers/a.safetensors"], ["there.safetensors"], {}, [], {"name": "a"}),
        Job("generator_file", ["results/generators/files/b.safetensors"], [], {}, [], {"name": "b"}),
    ]
    (line,) = missing(plan(""), jobs)
    assert "config.yaml: generators: b is missing" in line and "docs/generators.md" in line


def test_files_of_teachers_and_generators_that_are_not_there(tmp_path, monkeypatch):
    """They are named where something that is still to be made needs them."""
    monkeypatch.chdir(tmp_path)
    named = {"teachers": {"a": {"path": "a.pt"}, "other": {"path": "other.pt"}}, "generators": {"g": {"path": "g.pt"}}}
    jobs = [
        Job("teacher", ["a"], ["a.pt"], {}, [], {"name": "a"}),
        Job("generator_file", ["g"], ["g.pt"], {}, [], {"name": "g"}),
        Job("distill", ["set", "curve"], ["a", "g"], {}, [], {}),
        Job("artifact", ["claims"], ["set"], {}, [], {}),
    ]
    found = SimpleNamespace(settings=Settings(scale="paper", papers=("mini",), **named), of={("mini",): jobs}.get)

    def absent():
        return [line.split(".path")[0] for line in absent_files(found)]

    lines = absent_named(found.settings, "mine.yaml")
    assert list(lines) == [("teacher", "a"), ("teacher", "other"), ("generator_file", "g")]
    assert lines["teacher", "a"] == "mine.yaml: teachers.a.path: value 'a.pt': no such file (docs/teachers.md says how to get it)"
    assert "docs/generators.md" in lines["generator_file", "g"]
    assert absent() == ["config.yaml: teachers.a", "config.yaml: generators.g"], "but not what no paper asks for"
    Path("a").touch()
    assert absent() == ["config.yaml: generators.g"], "what was made of the other is there"
    Path("set").touch()
    assert absent() == [], "nothing that is to be made needs it"
    Path("a").unlink()
    Path("set").unlink()
    for name in ("a.pt", "g.pt"):
        Path(name).touch()
    assert absent() == []


def test_all_mistakes_at_once(plan, slurm):
    found = plan("datasets: {digits: {source: {kind: parquet, path: gone}}}")
    with pytest.raises(ConfigError) as error:
        preflight.preflight(found, found.of(["mini"]), [ask(slurm_account="ACCOUNT"), ask(slurm_partition="gpus")], 40, "mine.yaml")
    assert len(str(error.value).splitlines()) == 4
    assert str(error.value).count("mine.yaml: ") == 2
    assert "nothing was submitted" in str(error.value)
