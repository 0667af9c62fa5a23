"""Keep measured numbers: copy what a reader needs of one paper's results to records/, with how they were made beside them."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

from dd.artifacts import write_text
from dd.errors import ConfigError
from dd.figures.runs import lines_of, mixed
from dd.plan.jobs import Plan
from dd.plan.summary import run_facts


def write(plan: Plan, paper: str, out: Path) -> Path:
    """Write records/{paper}-{scale}/: README.md, every table and figure, and scores.json with each network's accuracy.

    Raises:
        ConfigError: something has not been run yet; the message names the first files that are missing.
    """
    if paper not in plan.papers:
        raise ConfigError(f"record: no paper or experiment {paper!r}; allowed: {', '.join(plan.papers)}")
    scores = dict.fromkeys(path for cells in plan.cells[paper].values() for cell in cells for path in cell.scores)
    read = [*scores, *plan.paper_jobs()[paper].outputs]  # what scores were made from may be elsewhere
    missing = [path for path in read if not Path(path).exists()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConfigError(f"record {paper}: not finished, {', '.join(missing[:3])}{more} missing; run `snakemake {paper}` first")
    source = Path("results/papers") / plan.scale.scale / paper
    target = out / f"{paper}-{plan.scale.scale}"
    target.mkdir(parents=True, exist_ok=True)
    tables = []
    for name, artifact in plan.papers[paper].artifacts.items():
        for suffix in ("csv", "png"):
            shutil.copyfile(source / f"{name}.{suffix}", target / f"{name}.{suffix}")
        body = (source / f"{name}.md").read_text(encoding="utf-8").strip()
        tables.append(body if body.startswith("#") else f"## {artifact.title}\n\n{body}")
    write_text(target / "scores.json", json.dumps(_scores(plan, paper), indent=1, sort_keys=True) + "\n")
    write_text(target / "README.md", _readme(plan, paper, "\n\n".join(tables), (source / "claims.json").read_text(encoding="utf-8")))
    return target


def _scores(plan: Plan, paper: str) -> list[dict[str, Any]]:
    """Return every cell with its configuration and the accuracy of each of its networks."""
    cells = []
    for name, found in plan.cells[paper].items():
        for cell in found:
            scores = [score for path in cell.scores for score in json.loads(Path(path).read_text(encoding="utf-8"))["scores"]]
            cells.append({"artifact": name, "at": cell.point.at, "config": cell.point.config, "id": cell.distilled,
                          "score_id": cell.evaluated, "scores": scores})  # fmt: skip
    return cells


def _readme(plan: Plan, paper: str, tables: str, claims: str) -> str:
    jobs = plan.of([paper])
    runs = [(job.stage, facts) for job in jobs if (facts := run_facts(job))]
    found = [facts for _, facts in runs]
    seconds: dict[str, float] = {}
    for stage, facts in runs:
        seconds[stage] = seconds.get(stage, 0.0) + (facts.get("seconds") or 0.0)
    spent = ", ".join(f"{stage} {value / 60:.1f} min" for stage, value in seconds.items())
    made = "\n".join(f"- {word}: {text}" for word, text in lines_of(found, len(jobs)) if word != "seconds")
    made += "".join(f"\n- {sentence}" for sentence in mixed(found))
    verdicts = "\n".join(f"- **{claim['verdict']}**: {claim['claim']} ({claim['reason']})" for claim in json.loads(claims))
    notes = plan.papers[paper].caveats.strip()
    return f"""# {plan.papers[paper].title}

Scale `{plan.scale.scale}`, recorded {datetime.date.today()}; made by `snakemake {paper} --config scale={plan.scale.scale}`.
The configuration of every cell and the accuracy of every network are in `scores.json`.

{notes}

{made}
- seconds of work: {spent}

{tables}
{chr(10) + '## Claims' + chr(10) + chr(10) + verdicts if verdicts else ''}
"""
