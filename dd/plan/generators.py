"""Training of generators as a chain of milestones, generators from files, and what is measured of the former."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd import generators, networks
from dd.analysis.gan_config import Quality, QualityConfig
from dd.config import digest, hashed, parse
from dd.errors import ConfigError, nearest
from dd.generators import files
from dd.plan.job import PATHS, Job
from dd.plan.papers import Scale, WeightsFile
from dd.plan.pretraining import Pretraining
from dd.train.gan_config import GanConfig
from dd.types import Need


@dataclass(frozen=True)
class Measured:
    """The measures of one milestone. config: of the job; how: as asked. name: of the generator. generator, classifier: files to read."""

    config: dict[str, Any]
    how: Quality
    name: str
    generator: str
    classifier: str


class Generators:
    """Collects what is asked of generators, and turns it into jobs at the end.

    about: what ids know of a dataset. images: files of a dataset under a lineage. pretraining: is asked for the classifiers. given: files
    that config.yaml names. `quality` says how generators are measured from now on, for whoever asks.
    """

    def __init__(
        self,
        about: Callable[[str], dict[str, Any]],
        images: Callable[[str, str], list[str]],
        pretraining: Pretraining,
        given: Mapping[str, WeightsFile],
    ) -> None:
        self._about = about
        self._images = images
        self._pretraining = pretraining
        self._given = given
        self.quality = Quality()
        self._configs: dict[str, dict[str, Any]] = {}
        self._epochs: dict[str, set[int]] = {}
        self._measured: dict[str, Measured] = {}
        self._files: dict[str, None] = {}

    def id(self, need: Need) -> str:
        """Return the id of what is needed.

        Raises:
            ConfigError: an unknown name, wrong fields of the training, or a generator from a file that cannot make the dataset's images.
        """
        if need.network in files.FILES:
            files.check(need.network, need.dataset)
            return digest(self._file_config(need.network))
        try:
            generators.parse(need.network)
        except ConfigError as error:
            raise ConfigError(f"{error}; from files{nearest(need.network, files.FILES)}") from None
        about = {"dataset": self._about(need.dataset), "generator": need.network, "training": need.config, "split": need.split}
        config = hashed(parse(GanConfig, about, f"generator {need.network}"))
        id_ = digest(config)
        self._configs[id_] = config
        return id_

    def ask(self, need: Need) -> list[str]:
        """Ask for the files of a need; return them. Whoever asks for a milestone of a training may ask for its measures too."""
        id_ = self.id(need)
        if need.network in files.FILES:
            self._files[need.network] = None
            return [PATHS["generator_file"].format(name=need.network)]
        self._epochs.setdefault(id_, set()).update(need.epochs)
        for epoch in need.epochs:
            self._measure(id_, epoch)
        return [self._file(id_, epoch) for epoch in need.epochs]

    def jobs(self) -> Iterator[Job]:
        """Yield every job: each milestone starts from the one before; those that were asked for are measured."""
        for id_, epochs in self._epochs.items():
            config, before = self._configs[id_], 0
            dataset, name = config["dataset"]["name"], config["generator"]
            for epoch in sorted(epochs):
                previous = [self._file(id_, before)] if before else []
                facts = {"dataset": dataset, "epoch": epoch, "previous": previous, "previous_epoch": before, "id": id_}
                modules = ["dd.train.gan", generators.module_of(name)]
                yield Job("generator", [self._file(id_, epoch)], [*self._images(dataset, "dc"), *previous], config, modules, facts)
                before = epoch
        for path, one in self._measured.items():
            dataset = one.config["dataset"]["name"]
            looks = [networks.module_of(network) for network in (one.how.network, one.how.score)]
            yield Job(
                "quality",
                [path],
                [one.generator, one.classifier, *self._images(dataset, "dc")],
                one.config,
                ["dd.analysis.gan_job", generators.module_of(one.name), *looks],
                {"dataset": dataset, "network": one.how.network, "generator": one.name, "id": digest(one.config)},
            )
        for name in self._files:
            file, config = self._given.get(name), self._file_config(name)
            yield Job("generator_file", [PATHS["generator_file"].format(name=name)], [file.path] if file else [], config,
                      ["dd.generators.files"], {"name": name, "id": digest(config)})  # fmt: skip

    def _measure(self, id_: str, epoch: int) -> None:
        """Ask for the measures of a milestone, and for the classifier that they look through.

        Raises:
            ConfigError: another paper measures it in another way: there is one file for it.
        """
        generator, how = self._file(id_, epoch), self.quality
        before = self._measured.get(measures_of(generator))
        if before is not None:
            if before.how != how:
                raise ConfigError(f"quality: {measures_of(generator)} is measured in another way by another paper; give both the same")
            return
        about = self._configs[id_]["dataset"]
        need = Need("pretrained", about["name"], how.network, hashed(how.training), (0,), (how.epochs,))
        (classifier,) = self._pretraining.ask(about, need, 0, published=False)
        fields = {key: value for key, value in hashed(how).items() if key not in ("network", "epochs", "training")}
        known = {"dataset": about, "generator": id_, "epoch": epoch, "classifier_epoch": how.epochs}
        config = parse(QualityConfig, {**fields, **known, "classifier": self._pretraining.id(about, need)}, "quality")
        self._measured[measures_of(generator)] = Measured(hashed(config), how, self._configs[id_]["generator"], generator, classifier)

    def _file_config(self, name: str) -> dict[str, Any]:
        file = self._given.get(name)
        return {"stage": "generator_file", "version": 1, "generator": name, "sha256": file.sha256 if file else None}

    def _file(self, id_: str, epoch: int) -> str:
        config = self._configs[id_]
        return PATHS["generator"].format(dataset=config["dataset"]["name"], generator=config["generator"], id=id_, epoch=epoch)


def quality_at(scale: Scale, given: Mapping[str, Any], where: str) -> Quality:
    """Return how a paper's generators are measured at a scale: it maps both networks, and caps numbers (`quality.samples`, ...).

    Raises:
        ConfigError: the paper gives an unknown field or a wrong value.
    """
    fields, names = hashed(parse(Quality, given, f"{where}: quality")), scale.map.get("network", {})
    for key in ("network", "score"):
        fields[key] = names.get(fields[key], fields[key])
    for key, value in fields.items():
        if isinstance(value, int):
            fields[key] = min(value, scale.cap.get(f"quality.{key}", value))
    return parse(Quality, fields, f"scale {scale.scale}: cap: quality")


def check_generators(given: Iterable[str], where: str) -> None:
    """Check that config.yaml names generators from files that there are.

    Raises:
        ConfigError: it does not.
    """
    for name in given:
        files.check_name(name, f"{where}: generators")


def measured(need: Need) -> bool:
    """Tell whether a need is a generator that is measured: one that is trained here."""
    return need.kind == "generator" and need.network not in files.FILES


def measures_of(generator: str) -> str:
    """Return where the measures of a generator's file stand: beside it."""
    return str(Path(generator).with_suffix(".quality.json"))


def behind(jobs: Mapping[str, Job], folders: Iterable[str]) -> list[dict[str, Any]]:
    """Return each generator that sets rest on, once: dataset, generator, epoch, and quality, the file of its measures.

    folders: of the sets. epoch and quality are None for a generator from a file.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        job = jobs[f"{folder}/distilled.safetensors"]
        for path in job.inputs:
            maker = jobs.get(path)
            if maker is None or maker.stage not in ("generator", "generator_file"):
                continue
            trained = maker.stage == "generator"
            found[path] = {
                "dataset": job.facts["dataset"], "generator": maker.config["generator"],
                "epoch": maker.facts["epoch"] if trained else None, "quality": measures_of(path) if trained else None,
            }  # fmt: skip
    return list(found.values())
