"""CAFE and CAFE+DSA put together: the authors' numbers, the schedule, the end of a run, shapes, resume, learning."""

import csv
from pathlib import Path

import pytest
import torch

from dd.artifacts import load_tensors, save_tensors
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.pool import RealPool
from dd.data.registry import DATASETS
from dd.distill import Loop, Stopped, distill
from dd.errors import ConfigError
from dd.evaluation import config_of
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.recipes import cafe, cafe_dsa
from dd.types import Inputs

METHODS = {"cafe": cafe, "cafe_dsa": cafe_dsa}
QUICK = {"network": "convnet3_in_w8", "probe": 8, "window": 2, "lambda1": 0.1, "lambda2": 0.04, "updates_max": 3, "inner_max": 3, "lr": 0.1}
SMALL = {"iterations": 100, "networks": 5, "batch_real": 8, "extractor": QUICK}


def config(method="cafe", **fields):
    return parse(METHODS[method].Config, {**SMALL, **fields}, method)


def random_inputs(name="digits", ipc=1, shape=None, classes=3, each=5):
    """Return inputs with random images of a dataset's shape."""
    c, h, w = shape or (DATASETS[name].channels, *DATASETS[name].size)
    g = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (classes * each, c, h, w), generator=g).byte()
    pool = RealPool(data, torch.arange(classes).repeat_interleave(each), classes, [0.5] * c, [0.25] * c)
    facts = {"name": name, "classes": list(map(str, range(classes))), "channels": c, "size": [h, w], "flip": True}
    return Inputs(Path(), facts, ipc, 0, "cpu", [], lambda: pool)


def distilled(method, fields, digits_dir, seed, out, ipc=1, **more):
    about = DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=ipc, recipe=hashed(config(method, **fields)))
    distill(about, digits_dir, [], seed, out, **more)
    return read_distilled(out / "distilled.safetensors", digits_dir)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(folder):
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader((folder / "curve.csv").open())]


# -- configuration ------------------------------------------------------------------------------------------------------


def test_the_authors_settings():
    made, rule = cafe.Config(), cafe.Config().extractor
    assert (made.networks, made.lr_img, made.momentum, made.batch_real, made.init, made.augment) == (2000, 0.1, 0.5, 256, "noise", "none")
    assert (made.early, made.beta, rule.lambda1, rule.lambda2, rule.window, rule.probe) == (0.1, 0.01, 0.04, 0.03, 10, 128)
    assert (rule.network, rule.lr, rule.batch, rule.accumulate) == ("convnet3_in", 0.01, 256, "released")
    assert made.iterations == 50 * made.networks and rule.updates_max == rule.inner_max == 10 * rule.window
    assert {**hashed(cafe_dsa.Config()), "augment": "none"} == hashed(made)
    assert cafe_dsa.Config().augment == "oneof"
    assert cafe.needs(made, "cifar10") == cafe_dsa.needs(cafe_dsa.Config(), "cifar10") == []


def test_mistakes_are_named():
    for wrong, key in (({"window": 1}, "window"), ({"inner_max": 0}, "inner_max"), ({"accumulate": "relased"}, "accumulate")):
        with pytest.raises(ConfigError, match=rf"^cafe: extractor\.{key}"):
            config(extractor=wrong)
    with pytest.raises(ConfigError, match="cafe: networks: value 0"):
        config(networks=0)


def test_the_work_follows_networks_and_iterations():
    (full,) = cafe.work(cafe.Config(), 10, 50_000, 10).values()
    assert full == 2000 * 25 * 10 * (256 + 30 + 128 + 15 * (30 + 128))
    assert cafe.work(cafe.Config(iterations=500), 10, 50_000, 10) == {"convnet3_in": full / 100}
    assert cafe.work(cafe.Config(networks=20), 10, 50_000, 10) == {"convnet3_in": full / 100}


def test_the_rate_is_halved_at_1200_1600_and_1800_of_2000_networks():
    made = cafe.Config()
    rates = [cafe.rate(made, number) for number in range(2000)]
    assert [number for number in range(1, 2000) if rates[number] != rates[number - 1]] == [1200, 1600, 1800]
    assert [rates[number] for number in (0, 1200, 1600, 1800)] == [0.1, 0.05, 0.025, 0.0125]
    assert [cafe.rate(cafe.Config(networks=10, lr_img=8.0), number) for number in range(10)] == [8] * 6 + [4, 4, 2, 1]
    assert cafe.rate(cafe.Config(networks=1), 0) == 0.1


# -- a run --------------------------------------------------------------------------------------------------------------


class Watched(Loop):
    """A loop that notes the images' rate and the network's number of every step."""

    def __init__(self, run, state):
        super().__init__(run, state, {})
        self.seen, draw = [], run.source.draw

        def watched(step):
            self.seen.append((run.optimizer.param_groups[0]["lr"], int(run.source.facts()["network"])))
            return draw(step)

        run.source.draw = watched


def test_the_rate_follows_the_network_also_after_a_resume_and_the_run_ends_with_the_networks(tmp_path):
    fields = {"networks": 10, "extractor": {**QUICK, "updates_max": 2, "inner_max": 1}}
    made, inputs = config(**fields), random_inputs()
    whole = Watched(cafe.build(made, inputs), tmp_path / "whole")
    assert whole.descend(lambda: False, 1e9, lambda step: None) is None
    assert whole.seen == [(0.1 * 0.5 ** sum(number >= at for at in (6, 8, 9)), number) for number in range(10) for _ in range(2)]
    assert whole.step == 20 < made.iterations
    for stop in range(1, 20):
        first, calls = Watched(cafe.build(made, inputs), tmp_path / f"{stop}"), iter(range(1, 100))
        with pytest.raises(Stopped):
            first.descend(lambda calls=calls, stop=stop: next(calls) >= stop, 1e9, lambda step: None)
        again = Watched(cafe.build(made, inputs), tmp_path / f"{stop}")
        again.load()
        again.seen.clear()  # loading draws the network that it fills
        assert again.run.optimizer.param_groups[0]["lr"] == whole.seen[stop][0]
        again.descend(lambda: False, 1e9, lambda step: None)
        assert first.seen + again.seen == whole.seen
        assert torch.equal(again.run.parameterization.images, whole.run.parameterization.images)


def test_iterations_end_a_run_that_has_networks_left(digits_dir, tmp_path):
    distilled("cafe", {"iterations": 4}, digits_dir, 0, tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 3]


def test_how_often_caps_were_hit_is_reported(digits_dir, tmp_path):
    never = {**QUICK, "lambda1": 0.0, "lambda2": 2.0}
    distilled("cafe", {"networks": 3, "extractor": never}, digits_dir, 0, tmp_path / "never")
    found = rows(tmp_path / "never")
    assert [row["network"] for row in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [row["caps_outer"] for row in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [row["caps_inner"] for row in found] == [0, 1, 2, 2, 3, 4, 4, 5, 6]
    assert [row["inner_epochs"] for row in found] == [3 * row["caps_inner"] for row in found]
    assert [row["probe"] == 0 for row in found] == [True, False, False] * 3
    assert all(row["loss"] == pytest.approx(row["alignment"] + row["discrimination"], rel=1e-4) for row in found)
    distilled("cafe", {"networks": 3, "extractor": {**QUICK, "lambda1": 2.0, "lambda2": 0.0}}, digits_dir, 0, tmp_path / "always")
    last = rows(tmp_path / "always")[-1]
    assert (last["step"], last["network"], last["caps_outer"]) == (5, 2, 0)


def test_where_the_images_start():
    noise = cafe.build(config(), random_inputs(ipc=40, each=50)).parameterization.images
    assert abs(noise.mean().item()) < 0.05 and abs(noise.std().item() - 1) < 0.05
    inputs = random_inputs(ipc=2)
    real = cafe.build(config(init="real"), inputs).parameterization.images
    pool = inputs.pool()
    everything = pool.x(torch.arange(len(pool)))
    assert [pool.labels[(everything == image).flatten(1).all(1)].tolist() for image in real] == [[0], [0], [1], [1], [2], [2]]


def test_the_two_methods_differ_in_what_matching_and_training_see(digits_dir, tmp_path):
    inputs = random_inputs()
    for method, same in (("cafe", True), ("cafe_dsa", False)):
        run = METHODS[method].build(config(method), inputs)
        synthetic, _ = run.batches(0).pair()
        assert torch.equal(synthetic.x, run.batches(0).synthetic().x) == same
    weights = {}
    for method, fields in (("cafe", {}), ("cafe_dsa", {}), ("cafe_dsa", {"augment": "none"})):
        run = METHODS[method].build(config(method, **fields), inputs)
        run.source.advance(run.source.draw(0), run.batches(0))  # without an update: only the training differs
        weights[method, len(fields)] = run.source.state_dict()["weights"]
    assert torch.equal(weights["cafe", 0], weights["cafe_dsa", 1])
    assert not torch.equal(weights["cafe", 0], weights["cafe_dsa", 0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "network", "shape", "classes"),
    [
        ("cifar10", "convnet3_in_w8", None, 2),
        ("mnist", "convnet3_in_w8", None, 10),
        ("cifar100", "convnet3_bn_w8", None, 100),
        ("digits", "mlp_w16", None, 10),
        ("mini_speech_commands", "convnet4_in_w8", (1, 64, 64), 8),
    ],
)
def test_every_shape_takes_steps(method, name, network, shape, classes):
    inputs = random_inputs(name, shape=shape, classes=classes, each=3)
    run = METHODS[method].build(config(method, extractor={**QUICK, "network": network}), inputs)
    for step in range(2):
        net, batches = run.source.draw(step), run.batches(step)
        run.optimizer.zero_grad()
        loss = run.term(batches, net)
        loss.backward()
        gradient = run.parameterization.images.grad
        assert loss.isfinite() and gradient.isfinite().all()
        assert (gradient.flatten(1).abs().sum(1) > 0).all()
        run.optimizer.step()
        run.source.advance(net, batches)
    assert run.finish().images.shape == (classes, *inputs.shape)


# -- resume -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "network"), [("cafe", "convnet3_in_w8"), ("cafe_dsa", "convnet3_bn_w8")])
def test_a_run_stopped_after_every_step_ends_with_the_same_bytes(method, network, digits_dir, tmp_path):
    fields = {"networks": 4, "steps": [0, 3, 50], "extractor": {**QUICK, "network": network}}
    whole = distilled(method, fields, digits_dir, 0, tmp_path / "whole", ipc=2)
    stops = 0
    while True:
        try:
            parts = distilled(method, fields, digits_dir, 0, tmp_path / "parts", ipc=2, stop=lambda: True)
            break
        except Stopped:
            stops += 1
    assert 8 <= stops == len(rows(tmp_path / "whole"))
    assert torch.equal(whole.images, parts.images)
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_a_resumed_run_that_forgets_anything_ends_elsewhere(digits_dir, tmp_path):
    never = {**QUICK, "lambda1": 0.0, "lambda2": 0.2, "window": 3, "updates_max": 4}
    fields, calls = {"networks": 3, "extractor": never}, iter(range(1, 100))
    distilled("cafe", fields, digits_dir, 0, tmp_path / "whole")
    with pytest.raises(Stopped):  # in the second network, before the rate is halved
        distilled("cafe", fields, digits_dir, 0, tmp_path / "parts", stop=lambda: next(calls) >= 6)
    state = tmp_path / "parts/.resume/state.safetensors"
    tensors, meta = load_tensors(state)
    assert set(tensors) == {"parameterization.images", "optimizer.0.momentum_buffer", "source.progress", "source.weights"}
    assert tensors["source.progress"][:2].tolist() == [1, 2] and len(tensors["source.progress"]) == 8
    content = state.read_bytes()
    changes = {name: {**tensors, name: torch.zeros_like(value)} for name, value in tensors.items()}
    for entry in (0, 1, 2, 3, 4, 5, 7):
        progress = tensors["source.progress"].clone()
        progress[entry] = 9 if entry in (3, 4, 5) else 0
        changes[f"entry {entry}"] = {**tensors, "source.progress": progress}
    for forgotten, kept in {**changes, "nothing": None}.items():
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_bytes(content) if kept is None else save_tensors(state, kept, meta)
        distilled("cafe", fields, digits_dir, 0, tmp_path / "parts")
        pictures = lambda folder: files(tmp_path / folder)["distilled.safetensors"]  # noqa: E731
        curve = lambda folder: files(tmp_path / folder)["curve.csv"]  # noqa: E731
        if forgotten in tensors:
            assert pictures("parts") != pictures("whole"), forgotten
        assert (curve("parts") == curve("whole")) == (forgotten == "nothing"), forgotten
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


# -- learning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_it_beats_random_selection(method, digits_dir, tmp_path):
    """At one image per class, from noise, over five sets: Welch against selection, p < 0.01."""
    from scipy.stats import ttest_ind

    network = "convnet3_in_w16"
    fields = {
        "iterations": 20,
        "networks": 2000,
        "batch_real": 32,
        "extractor": {"network": network, "probe": 4, "window": 3, "inner_max": 4},
    }
    protocol, means = config_of("dc_short")(epochs=60), {method: [], "random": []}
    for seed in range(5):
        made = {method: distilled(method, fields, digits_dir, seed, tmp_path / f"{method}{seed}")}
        about = DistillConfig(dataset=Dataset(name="digits"), method="random", ipc=1, recipe={})
        distill(about, digits_dir, [], seed, tmp_path / f"random{seed}")
        made["random"] = read_distilled(tmp_path / f"random{seed}/distilled.safetensors", digits_dir)
        for name, images in made.items():
            scores = evaluate(images, network, "dc_short", protocol, digits_dir, seed, range(2))
            means[name].append(sum(score.accuracy_last for score in scores) / 2)
    assert ttest_ind(means[method], means["random"], equal_var=False, alternative="greater").pvalue < 0.01, means


def test_every_setting_reaches_its_place(digits_dir):
    from dd.data.load import manifest
    from dd.distill import _pool
    from dd.recipes import cafe_dsa
    from dd.types import Inputs

    facts = manifest(digits_dir)
    fields = {"early": 0.3, "beta": 0.07, "momentum": 0.4, "lr_img": 0.2, "batch_real": 4,
              "extractor": {"network": "convnet3_in_w8", "lr": 0.03, "batch": 17}}  # fmt: skip
    config = parse(cafe_dsa.Config, fields, "cafe_dsa")
    run = cafe_dsa.build(config, Inputs(digits_dir, facts, 1, 0, "cpu", [], _pool(digits_dir, "dc", "train", "cpu")))
    assert (run.term._early, run.term._beta) == (0.3, 0.07)
    training = run.source._training
    assert (training.lr, training.momentum, training.weight_decay, training.batch) == (0.03, 0.0, 0.0, 17)
    assert "flip" not in training.strategy and training.augment == "oneof"
    assert (run.optimizer.param_groups[0]["momentum"], run.optimizer.param_groups[0]["lr"]) == (0.4, 0.2)


def test_a_wrong_strategy_is_explained(digits_dir):
    from dd.data.load import manifest
    from dd.distill import _pool
    from dd.errors import ConfigError
    from dd.recipes import cafe_dsa
    from dd.types import Inputs

    facts = manifest(digits_dir)
    config = parse(cafe_dsa.Config, {"strategy": "color_crp"}, "cafe_dsa")
    with pytest.raises(ConfigError, match="'crp'"):
        cafe_dsa.build(config, Inputs(digits_dir, facts, 1, 0, "cpu", [], _pool(digits_dir, "dc", "train", "cpu")))
