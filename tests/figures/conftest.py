"""A small drawing job with files of scores, as the plan and the evaluation would have made them."""

import hashlib
import json
from pathlib import Path

import pytest

HEADER = (
    "paper,artifact,dataset,resolution,ipc,method,variant,guidance,n_m,n_a,extractor,extractor_mode,extractor_epochs,source_domain,"
    "distill_network,eval_network,eval_protocol,metric,mean,std,source,certainty,note"
)


class Bench:
    """Makes cells, reported rows and jobs under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def cell(self, accuracies, *, scaled=(), diverged=(), sets=None, per_class=None, **at):
        """accuracies: one list of fractions a set. diverged: (set, net) pairs. per_class: (set, net) -> accuracies of each class."""
        at = {"dataset": "cifar10", "ipc": 10, "method": "dm", "eval_network": "convnet3_in", **at}
        name = "-".join(f"{value}" for value in at.values())
        id_ = hashlib.sha256(name.encode()).hexdigest()[:8]
        paths, folders = [], []
        for number, values in enumerate(accuracies):
            path = self.root / "scores" / name / f"set{number}-nets0-{len(values) - 1}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            scores = [
                {"network": "n", "protocol": "dc", "set": number, "net": net, "accuracy_last": value, "accuracy_best_on_test": value + 0.01,
                 "per_class": (per_class or {}).get((number, net), [value]), "status": "diverged" if (number, net) in diverged else "ok", "detail": {}}
                for net, value in enumerate(values)
            ]  # fmt: skip
            path.write_text(json.dumps({"config": {}, "scores": scores}))
            folder = self.root / "distilled" / name / f"seed{number}"
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(str(path))
            folders.append(str(folder))
        return {"at": at, "scaled": list(scaled), "chosen": [], "id": id_, "score_id": "1", "config": {"method": "dm", "recipe": {"lr": 1.5}},
                "scores": paths, "sets": folders, "analysis": None, "choice": None,
                "run_files": {"distillation": [f"{folder}/run.json" for folder in folders], "guides": []}}  # fmt: skip

    def reported(self, *rows):
        """rows: (columns without paper and source); returns the file's path."""
        path = self.root / "reported.csv"
        names = HEADER.split(",")
        lines = [HEADER]
        for row in rows:
            row = {"paper": "p", "artifact": "a", "metric": "top1_percent", "certainty": "exact", **row}
            lines.append(",".join(str(row.get(name, "")) for name in names))
        path.write_text("\n".join(lines) + "\n")
        return path

    def job(self, *artifacts, reported=None, claims=None, scale="paper", spread="all"):
        return {"paper": "p", "title": "A paper", "scale": scale, "spread": spread, "artifacts": list(artifacts),
                "reported": str(reported) if reported else None, "claims": str(claims) if claims else None}  # fmt: skip


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def lasting_bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))
