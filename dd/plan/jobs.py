"""Ids, paths and the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from dd import evaluation, networks, recipes
from dd.artifacts import set_file
from dd.config import canonical, digest, hashed, parse
from dd.config.stages import Dataset, DistillConfig, EvaluateConfig
from dd.data.config import DatasetConfig, load_datasets
from dd.data.registry import DATASETS, raw_files
from dd.errors import ConfigError, nearest
from dd.plan import choices, supplies
from dd.plan.analyses import analysis
from dd.plan.drawing import claims_file, drawing, reported_file
from dd.plan.generators import behind, check_generators, measured, measures_of, quality_at
from dd.plan.job import DRAWN, PATHS, Cell, Job
from dd.plan.papers import Artifact, Paper, Scale, Settings, load_paper, load_scale, paper_names, without
from dd.plan.points import Point, check_rules, expand, network_names
from dd.plan.recorded import recorded_code
from dd.plan.supplies import Supplies, check_teachers
from dd.plan.told import Tellings
from dd.sources.guides import architecture
from dd.types import Need

UNJUDGED = ("transition", "cams", "losses")  # kinds of figures that show no accuracy: their sets need no evaluation


class Plan:
    """All jobs of all papers at one scale.

    settings: config.yaml. folder: the `workflow` folder. Raises ConfigError for anything wrong in any of the files.
    """

    def __init__(self, settings: Settings, folder: Path, where: str = "config.yaml", only: Iterable[str] | None = None) -> None:
        self.settings = settings
        self.folder = folder
        self.scale: Scale = load_scale(folder, settings.scale, where)
        named = {name: load_paper(folder, name, where) for name in {*settings.papers, *settings.leave_out}}
        names = list(only) if only is not None else paper_names(folder)
        self.papers: dict[str, Paper] = {name: named.get(name) or load_paper(folder, name, where) for name in names}
        self.datasets: dict[str, DatasetConfig] = load_datasets(settings.datasets, f"{where}: datasets")
        self.jobs: dict[str, Job] = {}
        self.cells: dict[str, dict[str, list[Cell]]] = {}
        self._made: dict[str, Cell] = {}  # of the paper that is read; others may have other milestones
        self._sets: dict[str, tuple[str, str]] = {}  # likewise
        self._told = Tellings()
        check_teachers(settings.teachers, where)
        check_generators(settings.generators, where)
        self.supplies = Supplies(self.scale.block.seeds, self._dataset, self._images, settings.teachers, settings.generators)
        for name in self.datasets:
            self._prepare(name)
        for name, paper in self.papers.items():
            check_rules(paper, str(folder / "papers" / f"{name}.yaml"))
            paper = without(paper, self.scale.leave_out.get(name, ()), f"scale {self.scale.scale}", f"left out at scale {self.scale.scale}")
            paper = self.papers[name] = without(paper, settings.leave_out.get(name, ()), where)
            self.cells[name] = {}
            self._made.clear()
            self._sets.clear()
            self.supplies.pretraining.milestones = paper.milestones
            self.supplies.generators.quality = quality_at(self.scale, paper.quality, str(folder / "papers" / f"{name}.yaml"))
            for artifact_name, artifact in paper.artifacts.items():
                self.cells[name][artifact_name] = self._cells(paper, artifact_name, artifact)
        for job in self.supplies.jobs():
            self.jobs |= dict.fromkeys(job.outputs, job)
        for name, paper in self.papers.items():
            self._add_paper(name, paper)

    # -- cells ------------------------------------------------------------------------------------------------------

    def _cells(self, paper: Paper, name: str, artifact: Artifact) -> list[Cell]:
        where = str(self.folder / "papers" / f"{paper.paper}.yaml")
        try:
            judged = artifact.kind not in UNJUDGED
            cells = [self._cell(point, judged=judged) for point in expand(paper, name, artifact, self.scale, where)]
            for cell in cells if artifact.analysis is not None else ():
                cell.analysis = self._analysis(cell, artifact.analysis or {})
        except ConfigError as error:
            raise error if str(error).startswith(where) else ConfigError(f"{where}: artifacts.{name}: {error}") from None
        return cells

    def _cell(self, point: Point, *, candidate: bool = False, judged: bool = True) -> Cell:
        """Add all that a point needs; return its ids and files. Tables share points, and candidates of one choice are those of others."""
        key = canonical([{**point.config, "recipe": self._told(point.config).id}, candidate, judged])
        if key not in self._made:
            self._made[key] = self._new_cell(point, candidate, judged)
        return replace(self._made[key], point=point)

    def _new_cell(self, point: Point, candidate: bool, judged: bool) -> Cell:
        config, choice, steps = self._chosen(point.config)
        sets, nets = config["sets"], config["nets"]
        if not candidate:  # those are judged as the paper file says: more repeats of what is chosen must not choose anew
            sets = sets if self.settings.sets is None else min(sets, self.settings.sets)
            nets = nets if self.settings.nets is None else self.settings.nets
        folder, distilled = self._distilled(config, sets, None if steps else choice)
        if not judged:
            return Cell(point, distilled, "", [f"{folder}/seed{s}" for s in range(sets)], [], choice=choice)
        protocol = config["protocol"]["name"]
        settings = {key: value for key, value in config["protocol"].items() if key != "name"}
        rules = parse(evaluation.config_of(protocol), settings, f"protocol {protocol}")
        needed = rules.needs(config["dataset"], self._told(config).lineage, config.get("split", "train"))
        evaluated = hashed(
            EvaluateConfig(
                distilled=distilled, step=config.get("step"), network=config["network"], protocol=protocol, settings=settings,
                split=config.get("tested_on", "test"), inputs=tuple(self.supplies.id(need) for need in needed),
            )
        )  # fmt: skip
        id_ = digest(evaluated)
        scores = self._scores(config, evaluated, id_, needed, folder, (sets, nets), choice)
        return Cell(point, distilled, id_, [f"{folder}/seed{s}" for s in range(sets)], scores, choice=choice)

    def _chosen(self, config: dict[str, Any]) -> tuple[dict[str, Any], str | None, bool]:
        """Return a configuration that names the choice that it waits for, the file of that choice, and whether it is about steps."""
        found = choices.competition(config)
        if found is None:
            return config, None, False
        judged = {value: [self._cell(Point({}, one), candidate=True) for one in each] for value, each in found.candidates.items()}
        scores = {
            value: choices.Judged("+".join(cell.evaluated for cell in cells), [path for cell in cells for path in cell.scores])
            for value, cells in judged.items()
        }
        job = choices.job(scores, found.split)
        (path,) = job.outputs
        self.jobs.setdefault(path, job)
        if found.of == "step":
            return {**config, "step": {"choice": job.facts["id"], "last": found.last}}, path, True
        guidance = {**config["guidance"], "epochs": {**config["guidance"]["epochs"], "choice": job.facts["id"]}}
        return {**config, "guidance": guidance}, path, False

    def _distilled(self, config: Mapping[str, Any], sets: int, choice: str | None) -> tuple[str, str]:
        """Add the distillations of a point; return their common folder and their id."""
        about = [config.get(key) for key in ("dataset", "method", "ipc", "guidance", "split")]
        key = canonical([about, self._told(config).id, sets, choice])
        if key not in self._sets:  # many networks and steps are judged of the same ones
            self._sets[key] = self._new_sets(config, sets, choice)
        return self._sets[key]

    def _new_sets(self, config: Mapping[str, Any], sets: int, choice: str | None) -> tuple[str, str]:
        dataset, method, ipc = config["dataset"], config["method"], config["ipc"]
        self._prepare(dataset)
        self._check_ipc(dataset, method, ipc)
        about = DistillConfig(
            dataset=Dataset(**self._dataset(dataset)), method=method, ipc=ipc, recipe=config["recipe"], guidance=config.get("guidance"),
            split=config.get("split", "train"),
        )  # fmt: skip
        own, guides = recipes.needs_of(about, dataset)
        needed = [*own, *guides]
        supplies.check_guides(about, guides)
        for need in needed:
            if need.kind != "teacher":
                self._prepare(need.dataset)
        hashed_config = hashed(about.model_copy(update={"inputs": tuple(self.supplies.id(need) for need in needed)}))
        id_ = digest(hashed_config)
        folder = f"results/distilled/{dataset}/{method}/ipc{ipc}-{id_}"
        published = recipes.published(method, config["recipe"])
        modules = ["dd.distill", _recipe_module(method), *_network_modules(config["recipe"]), *_network_modules(config.get("guidance"))]
        for seed in range(sets):
            at = Path(folder, f"seed{seed}")
            path = str(set_file(at, None))
            if path in self.jobs:
                continue
            groups = [self.supplies.ask(need, seed) for need in needed]
            steps = [str(set_file(at, step)) for step in published]
            files = dict.fromkeys(file for group in groups for file in group)
            measures = self._demanded(needed, groups)
            self.jobs[path] = Job(
                "distill",
                [path, *steps, *(f"{folder}/seed{seed}/{name}" for name in ("config.json", "curve.csv", "grid.png"))],
                [*self._images(dataset, self._told(config).lineage), *files, *([choice] if choice else []), *measures],
                hashed_config,
                modules,
                {"dataset": dataset, "groups": groups, "seed": seed, "id": id_, "iterations": config["recipe"].get("iterations", 0),
                 "guides": [file for group in groups[len(own) :] for file in group], "choice": choice, "quality": measures},
            )  # fmt: skip
        return folder, id_

    def _demanded(self, needed: Iterable[Need], groups: Iterable[list[str]]) -> list[str]:
        """Return the measures of generators without which nothing is distilled, if config.yaml is strict."""
        made = [file for need, group in zip(needed, groups, strict=True) if measured(need) for file in group]
        return [measures_of(file) for file in made] if self.settings.strict else []

    def _scores(
        self, config: Mapping[str, Any], evaluated: dict[str, Any], id_: str, needed: Sequence[Need], folder: str,
        repeats: tuple[int, int], choice: str | None,
    ) -> list[str]:  # fmt: skip
        """Add the evaluations of a cell's sets, block by block of networks; return their files."""
        dataset, network, protocol, step = config["dataset"], evaluated["network"], evaluated["protocol"], evaluated["step"]
        sets, nets, told = *repeats, self._told(config)
        modules = ["dd.evaluation.run", "dd.evaluation.io", evaluation.module_of(protocol), *_network_modules(evaluated)]
        picked = isinstance(step, dict)
        others = [one for one in recipes.published(config["method"], config["recipe"]) if one != step["last"]] if picked else []
        scores = []
        for set_ in range(sets):
            groups = [self.supplies.ask(need, set_) for need in needed]
            at = Path(folder, f"seed{set_}")
            source = str(set_file(at, None if picked else step))
            more = [*(str(set_file(at, one)) for one in others), *([choice] if picked and choice else [])]
            for nets_ in _blocks(nets, self.scale.block.nets):
                path = PATHS["evaluate"].format(
                    distilled=evaluated["distilled"], network=network, protocol=protocol, id=id_, set=set_, first=nets_[0], last=nets_[1]
                )
                scores.append(path)
                if path in self.jobs:  # many cells share their scores
                    continue
                self.jobs[path] = Job(
                    "evaluate",
                    [path],
                    [source, *self._images(dataset, told.lineage), *(file for group in groups for file in group), *more],
                    evaluated,
                    modules,
                    {"dataset": dataset, "set": set_, "nets": nets_, "images": told.images, "id": id_, "groups": groups,
                     "choice": choice if picked else None},
                )  # fmt: skip
        return scores

    def _analysis(self, cell: Cell, wanted: Mapping[str, Any]) -> str:
        """Add an analysis of the cell's first set; return its file."""
        dataset = cell.point.config["dataset"]
        found = analysis(cell, wanted, self.scale, dataset, self.supplies)
        cell.point.scaled += [item for item in found.changed if item not in cell.point.scaled]
        path = PATHS["analyse"].format(distilled=cell.distilled, kind=found.config["kind"], id=found.id, set=0)
        self.jobs[path] = Job(
            "analyse",
            [path],
            [found.distilled, *self._images(dataset, found.lineage), *found.checkpoints],
            found.config,
            found.modules,
            {"dataset": dataset, "id": found.id, "ipc": cell.point.config["ipc"], "checkpoints": found.checkpoints},
        )
        return path

    # -- data -------------------------------------------------------------------------------------------------------

    def _manifest(self, dataset: str) -> str:
        return PATHS["prepare"].format(dataset=dataset)

    def _images(self, dataset: str, lineage: str) -> list[str]:
        """Return the files in which a dataset's images stand, as a lineage has them; the manifest comes first."""
        manifest = self._manifest(dataset)
        if lineage != "zca":
            return [manifest]
        path = PATHS["whiten"].format(dataset=dataset)
        self.jobs.setdefault(path, Job("whiten", [path], [manifest], {"dataset": dataset}, ["dd.data.whiten"], {"dataset": dataset}))
        return [manifest, path]

    def _dataset(self, name: str) -> dict[str, Any]:
        """Return what ids know of a dataset: its name, and its fingerprint where that is pinned."""
        pinned = self.datasets[name].fingerprint or (DATASETS[name].fingerprint if name in DATASETS else None)
        given = self.datasets[name].model_dump(mode="json", include={"mean", "std", "flip"}, exclude_none=True)
        return {"name": name, "fingerprint": pinned, **({"given": given} if given else {})}

    def _prepare(self, name: str) -> None:
        if name not in self.datasets:
            raise ConfigError(f"dataset: no dataset {name!r}{nearest(name, self.datasets)} (others are added in config.yaml, datasets)")
        path = self._manifest(name)
        if path in self.jobs:
            return
        source = self.datasets[name].source
        raw = [PATHS["download"].format(dataset=name, file=file) for file in raw_files(name)] if source.kind == "download" else []
        if raw:
            self.jobs[raw[0]] = Job("download", raw, [], {"dataset": name}, ["dd.data.download"], {"dataset": name})
        self.jobs[path] = Job(
            "prepare",
            [path, *(f"data/prepared/{name}/{split}.safetensors" for split in ("train", "holdout", "test"))],
            raw,
            hashed(self.datasets[name]),
            ["dd.data.prepare"],
            {"dataset": name},
        )

    def _check_ipc(self, dataset: str, method: str, ipc: int) -> None:
        smallest = DATASETS[dataset].smallest_class if dataset in DATASETS else None
        if smallest is not None and ipc > smallest:
            raise ConfigError(
                f"ipc: value {ipc} ({method} on {dataset}) is larger than the smallest class of {dataset}; allowed: 1 to {smallest}"
            )

    # -- the rest of the graph --------------------------------------------------------------------------------------

    def _add_paper(self, name: str, paper: Paper) -> None:
        folder = f"results/papers/{self.scale.scale}/{name}"
        cells = [cell for artifact in self.cells[name].values() for cell in artifact]
        inputs = {path: None for cell in cells for path in cell.scores}
        inputs |= {f"{folder_}/grid.png": None for cell in cells for folder_ in cell.sets}
        inputs |= {path: None for cell in cells for path in (cell.analysis, cell.choice) if path}
        inputs |= {one["quality"]: None for cell in cells for one in behind(self.jobs, cell.sets) if one["quality"]}
        outputs = [f"{folder}/paper.json", *(f"{folder}/{artifact}.{suffix}" for artifact in paper.artifacts for suffix in DRAWN)]
        printed = [path for path in (reported_file(self, name), claims_file(self, paper)) if path and Path(path).exists()]
        self.jobs[f"{folder}/claims.json"] = Job(
            "artifact",
            [f"{folder}/claims.json", *outputs],
            [*inputs, *printed],
            {"paper": name, "digest": digest(self.drawing(name))},
            ["dd.figures", "dd.figures.paper"],
            {"paper": name},
        )

    def drawing(self, name: str) -> dict[str, Any]:
        """Return the JSON from which `dd.figures` draws one paper."""
        return drawing(self, name)

    def job(self, stage: str, wildcards: Mapping[str, Any]) -> Job:
        """Return the job that makes the file that a rule's wildcards describe.

        Raises:
            ConfigError: nothing in any paper at this scale asks for that file.
        """
        path = PATHS[stage].format(**{**dict(wildcards), "scale": self.scale.scale})
        if path not in self.jobs:
            raise ConfigError(f"{path}: no paper at scale {self.scale.scale} asks for this file (see `python -m dd plan`)")
        return self.jobs[path]

    # -- what rules ask ---------------------------------------------------------------------------------------------

    def stage(self, name: str) -> list[Job]:
        """Return every job of a stage, once."""
        return list({id(job): job for job in self.jobs.values() if job.stage == name}.values())

    def blocks(self, stage: str) -> dict[tuple[int, ...], list[str]]:
        """Return, for each list of seeds that one job of a stage (pretrain, experts) makes, the keys of what is made so: their folders."""
        found: dict[tuple[int, ...], list[str]] = {}
        for job in self.stage(stage):
            found.setdefault(tuple(job.facts["seeds"]), []).append(job.facts["key"])
        return found

    def block(self, stage: str, key: str, seeds: tuple[int, ...]) -> Job:
        """Return the job of a key and a list of seeds."""
        folder, name = ("pretrained", "seed") if stage == "pretrain" else ("experts", "expert")
        return self.jobs[f"results/{folder}/{key}/{name}{seeds[0]}.safetensors"]

    def step_lists(self) -> dict[tuple[int, ...], list[str]]:
        """Return, for each list of published steps, the ids of the distillations that publish just these."""
        lists: dict[tuple[int, ...], dict[str, None]] = {(): {}}
        for job in self.stage("distill"):
            lists.setdefault(tuple(recipes.published(job.config["method"], job.config["recipe"])), {})[job.facts["id"]] = None
        return {steps: list(ids) for steps, ids in lists.items() if ids}

    def paper_jobs(self) -> dict[str, Job]:
        """Return the job that draws each paper."""
        return {job.facts["paper"]: job for job in self.stage("artifact")}

    def drawing_settings(self, papers: Iterable[str]) -> str:
        """Return the settings that drawing these papers depends on, as JSON: where jobs run, or what is refused, changes no picture."""
        return canonical({**self.settings.model_dump(mode="json", exclude={"device", "strict", "track_code"}), "papers": list(papers)})

    def report(self, papers: Iterable[str]) -> Job:
        """Return the job that writes the report of papers. It is none of `jobs`: no paper asks for it."""
        claims = [PATHS["artifact"].format(scale=self.scale.scale, paper=paper) for paper in papers]
        modules = ["dd.figures.report", "dd.plan.summary"]
        return Job("report", ["results/report.html", "results/index.csv"], claims, {"papers": list(papers)}, modules)

    def code_of(self, job: Job) -> str:
        """Return the identity of a job's code; with `track_code: false`, the one that last made its result, if one did."""
        return job.code if self.settings.track_code else recorded_code(job.outputs[0]) or job.code

    def of(self, papers: Iterable[str]) -> list[Job]:
        """Return the jobs that these papers need, in an order in which they can run."""
        order: dict[int, Job] = {}
        maker = {path: job for job in self.jobs.values() for path in job.outputs}

        def visit(job: Job) -> None:
            if id(job) in order:
                return
            for path in job.inputs:
                if path in maker:  # not a file of the project itself
                    visit(maker[path])
            order[id(job)] = job

        for name in papers:
            visit(self.jobs[PATHS["artifact"].format(scale=self.scale.scale, paper=name)])
        return list(order.values())


def _blocks(total: int, size: int) -> list[tuple[int, int]]:
    """Return (first, last) of blocks of `size`: (0, 4), (5, 9), (10, 11)."""
    return [(first, min(first + size, total) - 1) for first in range(0, total, size)]


_recipe_module = cache(recipes.module_of)  # which looks through a folder


def _network_modules(config: Any) -> list[str]:
    """Return the modules of all networks that a configuration names."""
    return list(dict.fromkeys(networks.module_of(architecture(name)) for name in network_names(config)))
