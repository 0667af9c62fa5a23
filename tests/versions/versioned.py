"""A checkout under git and DVC, with a remote that is a folder."""

import shutil
import subprocess
from pathlib import Path

from project import ROOT, Project

from dd.config import load_yaml

# Small, and yet every kind of step: data, networks that a set rests on, two methods, a table.
SMALL = """
paper: mini
title: A small pipeline
claims: false
milestones: [1]
defaults:
  sets: 1
  nets: 1
  recipe:
    dm: {iterations: 3, batch_real: 8, extractor: {network: convnet3_in_w8}}
    herding: {features: {network: convnet3_in_w8, epochs: 1}}
  protocol: {dc_short: {epochs: 2}}
at: {dataset: digits, eval_network: convnet3_in_w8, eval_protocol: dc_short}
artifacts:
  methods:
    title: Methods
    kind: table
    matrix: {ipc: [1], method: [dm, herding]}
    rows: [method]
    columns: [ipc]
"""


class Versioned(Project):
    """A checkout with git and DVC."""

    def __init__(self, root: Path, remote: Path) -> None:
        super().__init__(root, papers=())
        for name in ("dvc.yaml", ".dvcignore", ".gitignore", "Makefile"):
            shutil.copy(ROOT / name, root / name)
        (root / "workflow" / "papers" / "mini.yaml").write_text(SMALL)
        for name in ("paper.yaml", "demo.yaml", "small.yaml"):  # of papers that are not here
            (root / "workflow" / "scales" / name).unlink()
        (root / "workflow" / "scales" / "paper.yaml").write_text("scale: paper\ntitle: as printed\n")
        self.git("init", "-q", "-b", "main")
        self.do("dvc", "init", "-q")
        shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
        self.do("dvc", "remote", "add", "-q", "-d", "local", str(remote))
        self.commit("first")

    @classmethod
    def at(cls, root: Path) -> "Versioned":
        """A checkout that is there already."""
        made = cls.__new__(cls)
        made.root = root
        return made

    @property
    def env(self) -> dict[str, str]:
        names = {f"GIT_{who}_{what}": "someone@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {**super().env, **names, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "DVC_NO_ANALYTICS": "1"}

    def do(self, *args: str, **env: str) -> str:
        """Run a command that must end well; return what it said."""
        done = self.tried(*args, **env)
        assert done.returncode == 0, f"{args}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def tried(self, *args: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(args, cwd=self.root, env={**self.env, **env}, capture_output=True, text=True, timeout=500)

    def git(self, *args: str) -> str:
        return self.do("git", *args)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def clone(self, to: Path) -> "Versioned":
        """A clone that has the project's files, and none of its results."""
        self.do("git", "clone", "-q", str(self.root), str(to))
        return Versioned.at(to)

    def lock(self) -> dict[str, str]:
        """Return the hash of every out in dvc.lock."""
        stages = load_yaml(self.root / "dvc.lock")["stages"].values()
        return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}

    def agree(self) -> None:
        """Check that Snakemake, asked for all that DVC records, and DVC both say that nothing is to be done."""
        assert self.planned("everything") == {}
        assert "up to date" in self.do("dvc", "status")
