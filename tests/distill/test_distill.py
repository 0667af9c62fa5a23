"""The loop: every recipe resumes bit for bit, publishes its steps, and records a divergence instead of crashing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dd import recipes
from dd.artifacts import load_tensors, save_tensors
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import indices, load
from dd.distill import Loop, Stopped, distill
from dd.errors import ArtifactError, ConfigError
from dd.evaluation import config_of
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.parameterizations.pixels import Pixels
from dd.sources.population import Population
from dd.train.config import ExpertConfig, PretrainConfig
from dd.train.experts import experts
from dd.train.gan import train as train_generator
from dd.train.gan_config import GanConfig
from dd.train.pretrain import pretrain
from dd.types import Run

SMALL = {
    "iterations": 6, "history_start": 1, "batch_real": 8, "steps": [0, 3], "network": "convnet3_in_w8", "train_batch": 16, "train_steps": 2,
    "extractor": {"network": "convnet3_in_w8", "probe": 4, "window": 3, "inner_max": 3},
    "features": {"network": "convnet3_in_w8", "epochs": 1},
    "outer": 4, "inner": 2,  # a network lives longer than one update, and shorter than all
    "syn_steps": 3, "expert_span": 1, "max_start": 2, "batch_syn": 7,
    "experts": {"network": "convnet3_in_w8", "count": 2, "epochs": 2, "images": 10},
    "generator": {"name": "mini_w16", "epochs": 0}, "average": 3, "cut": 3, "cuts": [1, 2, 4], "keep": "last", "chunk": 7,
    "proxy": {"network": "convnet3_in_w8"}, "squeeze": {"network": "convnet3_bn_w8", "epochs": 1}, "batch": 7,
    "settings": {"batch_real": 8, "extractor": {"network": "convnet3_in_w8"}},
}  # fmt: skip


def fitting(model, values):
    """Return the values that a configuration has fields for, in it and in its parts."""
    fields = model.model_fields
    kept = {key: value for key, value in values.items() if key in fields}
    part = lambda key, value: fitting(fields[key].annotation, value) if hasattr(fields[key].annotation, "model_fields") else value  # noqa: E731
    return {key: part(key, value) for key, value in kept.items()}


def configure(method, ipc=2, **fields):
    recipe = recipes.load(method)
    given = fitting(recipe.Config, SMALL) | fields
    return DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=ipc, recipe=hashed(parse(recipe.Config, given, method)))


def needed(config, digits_dir, folder):
    recipe = recipes.load(config.method)
    groups = []
    for need in recipe.needs(parse(recipe.Config, config.recipe, ""), "digits"):
        if need.kind == "experts":
            files = [folder / f"expert{seed}.safetensors" for seed in need.seeds]
            experts(ExpertConfig(dataset=Dataset(name="digits"), **need.config), digits_dir, need.seeds, files)
            groups.append(files)
            continue
        if need.kind == "generator":
            file = folder / "generator.safetensors"
            train_generator(GanConfig(dataset=Dataset(name="digits"), generator=need.network), digits_dir, 0, file)
            groups.append([file])
            continue
        about = PretrainConfig(dataset=Dataset(name="digits"), network=need.network, training=need.config)
        seeds = list(need.seeds or (0,))
        files = [folder / f"{need.network}-{seed}.safetensors" for seed in seeds]
        pretrain(about, digits_dir, min(need.epochs[0], 1), seeds, files)  # how well it is trained does not matter here
        groups.append(files)
    return groups


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "run.json"}


def after(calls):
    """Return a `stop` that says so at its n-th call."""
    count = iter(range(1, 10**9))
    return lambda: next(count) >= calls


@pytest.mark.parametrize("method", recipes.names())
def test_a_stopped_run_ends_with_the_same_bytes(method, digits_dir, tmp_path):
    config = configure(method)
    paths = needed(config, digits_dir, tmp_path)
    distill(config, digits_dir, paths, 0, tmp_path / "whole")
    stops = 0
    while True:
        try:
            distill(config, digits_dir, paths, 0, tmp_path / "parts", stop=after(2))
            break
        except Stopped:
            stops += 1
            assert not (tmp_path / "parts/distilled.safetensors").exists()
    if "iterations" in config.recipe:
        assert stops == 3
    assert files(tmp_path / "whole") == files(tmp_path / "parts")
    assert not (tmp_path / "parts/.resume").exists()


@pytest.mark.parametrize("method", [name for name in recipes.names() if "iterations" in recipes.load(name).Config.model_fields])
def test_a_run_that_forgets_any_part_of_its_state_ends_elsewhere(method, digits_dir, tmp_path):
    config = configure(method)
    paths = needed(config, digits_dir, tmp_path)
    distill(config, digits_dir, paths, 0, tmp_path / "whole")
    with pytest.raises(Stopped):
        distill(config, digits_dir, paths, 0, tmp_path / "parts", stop=after(3))
    state = tmp_path / "parts/.resume/state.safetensors"
    tensors, meta = load_tensors(state)
    assert tensors
    changes = {name: {**tensors, name: torch.zeros_like(value)} for name, value in tensors.items()}
    changes["the optimizer"] = {name: value for name, value in tensors.items() if not name.startswith("optimizer.")}
    changes["nothing"] = tensors
    for forgotten, kept in changes.items():
        out = tmp_path / forgotten
        shutil.copytree(tmp_path / "parts", out)
        save_tensors(out / ".resume" / state.name, kept, meta)
        try:
            distill(config, digits_dir, paths, 0, out)
        except ArtifactError:  # noticed, which is better still
            assert forgotten != "nothing"
            continue
        same = files(tmp_path / "whole")["distilled.safetensors"] == files(out)["distilled.safetensors"]
        assert same == (forgotten == "nothing"), forgotten


@pytest.mark.parametrize("method", [name for name in recipes.names() if "iterations" in recipes.load(name).Config.model_fields])
def test_any_method_can_be_guided_by_configuration_alone(method, digits_dir, tmp_path):
    plain = configure(method, steps=[])
    paths = needed(plain, digits_dir, tmp_path)
    guide = tmp_path / "guide.safetensors"
    pretrain(PretrainConfig(dataset=Dataset(name="digits"), network="mlp_w16"), digits_dir, 1, [0], [guide])
    images = {}
    for kind in (None, "clom", "cclom"):
        guidance = kind and {"kind": kind, "alpha": 5.0, "networks": ["mlp_w16"], "epochs": 1, "batch": 20}
        config = plain.model_copy(update={"guidance": guidance})
        out = tmp_path / str(kind)
        distill(config, digits_dir, [*paths, *([[guide]] if kind else [])], 0, out)
        images[kind] = read_distilled(out / "distilled.safetensors", digits_dir).images
        assert ("guidance" in (out / "curve.csv").read_text().splitlines()[0].split(",")) == bool(kind)
    assert all(bool(found.isfinite().all()) for found in images.values())
    assert not torch.equal(images[None], images["clom"]) and not torch.equal(images["clom"], images["cclom"])


@pytest.mark.parametrize("writer", ["write_text", "write_grid", "write_distilled", "shutil.rmtree"])
def test_a_run_that_fails_while_it_publishes_ends_with_the_same_bytes(writer, digits_dir, tmp_path, monkeypatch):
    config, out = configure("dm"), tmp_path / "parts"
    distill(config, digits_dir, [[]], 0, tmp_path / "whole")
    with pytest.raises(Stopped):  # so that a state lies there from after the published steps
        distill(config, digits_dir, [[]], 0, out, stop=after(5))

    def full(path, *_, **__):
        if "steps" not in Path(path).parts:
            raise ArtifactError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(f"dd.distill.{writer}", full)
        with pytest.raises(ArtifactError, match="full"):
            distill(config, digits_dir, [[]], 0, out)
    for made in [p for p in out.rglob("*") if p.is_file() and ".resume" not in p.parts]:
        made.unlink()  # as the workflow does after a failure
    distill(config, digits_dir, [[]], 0, out)
    assert files(tmp_path / "whole") == files(out)


def test_a_foreign_state_is_refused_and_a_damaged_one_set_aside(digits_dir, tmp_path):
    config = configure("dm")
    distill(config, digits_dir, [[]], 0, tmp_path / "whole")
    with pytest.raises(Stopped):
        distill(config, digits_dir, [[]], 0, tmp_path / "parts", stop=after(3))
    state = tmp_path / "parts/.resume/state.safetensors"
    tensors, meta = load_tensors(state)
    for other, seed in ((config, 1), (configure("dm", lr_img=0.5), 0)):
        with pytest.raises(ArtifactError, match="belongs to another configuration, seed or dataset") as caught:
            distill(other, digits_dir, [[]], seed, tmp_path / "parts")
        assert str(state) in str(caught.value)
    save_tensors(state, tensors, {**meta, "fingerprint": "0"})  # of other images under the same name
    with pytest.raises(ArtifactError, match="belongs to another"):
        distill(config, digits_dir, [[]], 0, tmp_path / "parts")
    save_tensors(state, tensors, meta)
    state.write_bytes(state.read_bytes()[:-50])
    distill(config, digits_dir, [[]], 0, tmp_path / "parts")
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_a_killed_process_continues_and_ends_with_the_same_bytes(digits_dir, tmp_path):
    config = configure("dm", iterations=400, steps=[0, 3, 400])
    (tmp_path / "c.json").write_text(json.dumps(hashed(config)))
    args = [sys.executable, "-m", "dd", "distill", "--config", str(tmp_path / "c.json"), "--dataset", str(digits_dir), "--seed", "0",
            "--device", "cpu"]  # fmt: skip
    whole = subprocess.Popen([*args, "--out", str(tmp_path / "whole")])
    run = subprocess.Popen([*args, "--out", str(tmp_path / "killed"), "--save-every", "0.01"], start_new_session=True)
    state = tmp_path / "killed/.resume/state.safetensors"
    end = time.monotonic() + 60
    while not state.exists() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert state.exists() and not (tmp_path / "killed/distilled.safetensors").exists()
    stopped = subprocess.run([*args, "--out", str(tmp_path / "killed"), "--stop-after", "0"], capture_output=True, text=True)
    assert stopped.returncode == 75, stopped.stderr
    assert "start again to continue" in stopped.stderr
    subprocess.run([*args, "--out", str(tmp_path / "killed")], check=True)
    assert whole.wait() == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert json.loads((tmp_path / "killed/run.json").read_text())["resumed"] == 2


def test_missing_files_of_a_need_are_named(digits_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"distill herding: need: files of 0 needs .* needs 1: pretrained convnet3_in_w8"):
        distill(configure("herding"), digits_dir, [], 0, tmp_path / "set")
    pooled = configure("dm", extractor={"network": "convnet3_in_w8", "epochs": 1, "pool": 2})
    with pytest.raises(ConfigError, match="needs 1"):  # and not: trained here and now instead
        distill(pooled, digits_dir, [[]], 0, tmp_path / "set")
    with pytest.raises(ConfigError, match="needs 0: nothing"):
        distill(configure("dm"), digits_dir, [[tmp_path / "net.safetensors"]], 0, tmp_path / "set")


def test_a_published_step_is_the_set_of_a_shorter_run(digits_dir, tmp_path):
    distill(configure("dm", iterations=6, steps=[0, 3, 6]), digits_dir, [[]], 0, tmp_path / "long")
    for step in (0, 3):
        distill(configure("dm", iterations=step, steps=[]), digits_dir, [[]], 0, tmp_path / f"{step}")
        one = read_distilled(tmp_path / f"long/steps/{step}.safetensors", digits_dir)
        other = read_distilled(tmp_path / f"{step}/distilled.safetensors", digits_dir)
        assert torch.equal(one.images, other.images)
    last, final = (read_distilled(tmp_path / "long" / name, digits_dir) for name in ("steps/6.safetensors", "distilled.safetensors"))
    assert torch.equal(last.images, final.images)


def test_sets_are_independent(digits_dir, tmp_path):
    config = configure("dm", iterations=0, steps=[])
    made = []
    for seed in (0, 1):
        distill(config, digits_dir, [[]], seed, tmp_path / str(seed))
        made.append(read_distilled(tmp_path / str(seed) / "distilled.safetensors", digits_dir).images)
    assert not torch.equal(*made)


def test_a_divergence_is_recorded(digits_dir, tmp_path):
    distill(configure("dm", lr_img=1e30, iterations=20, steps=[5, 15]), digits_dir, [[]], 0, tmp_path / "set")
    found = read_distilled(tmp_path / "set/distilled.safetensors", digits_dir).meta["diverged"]
    assert found["step"] > 0
    assert found["loss"] in ("nan", "inf") or found["grad_norm"] in ("nan", "inf")
    assert (tmp_path / "set/grid.png").stat().st_size > 0
    assert (tmp_path / "set/steps/15.safetensors").exists()


def test_a_published_step_of_a_run_that_diverged_says_so(digits_dir, tmp_path):
    config = configure("dc", iterations=300, outer=5, inner=1, lr_net=1e12, steps=[2, 7])  # a row of the log every third step
    distill(config, digits_dir, [], 0, tmp_path / "set")
    for file in ("steps/2.safetensors", "steps/7.safetensors", "distilled.safetensors"):
        found = read_distilled(tmp_path / "set" / file, digits_dir)
        assert bool(found.images.isfinite().all()) or "diverged" in found.meta, file
    assert found.meta["diverged"]["step"] <= 7


@pytest.mark.parametrize(("lr", "broken"), [(1.0, False), (1e30, True)])
def test_numbers_broken_by_the_very_last_update_are_noticed(lr, broken, tmp_path):
    pixels = Pixels(torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64), lr)
    optimizer = torch.optim.SGD(pixels.parameters())
    run = Run(
        finish=lambda: None, parameterization=pixels, term=lambda batches, net: (pixels.images * 1e15).sum(), optimizer=optimizer,
        source=Population(lambda number: None), batches=lambda step: None, iterations=1, steps=(0, 1),
    )  # fmt: skip
    published = []
    diverged = Loop(run, tmp_path / "state", {}).descend(lambda: False, 60, published.append)
    assert bool(pixels.images.isfinite().all()) != broken
    assert diverged == ({"step": 0, "loss": 0.0, "grad_norm": pytest.approx(2e15)} if broken else None)
    assert published == ([0] if broken else [0, 1])


def test_values_that_do_not_fit_the_data_are_named(digits_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"batch_real: value 500.*allowed: 1 to 139"):
        distill(configure("dm", batch_real=500), digits_dir, [[]], 0, tmp_path / "a")
    with pytest.raises(ConfigError, match=r"ipc: value 200"):
        distill(configure("random", ipc=200), digits_dir, [], 0, tmp_path / "b")
    assert not list(tmp_path.rglob("distilled.safetensors"))


def test_whole_stores_positions_not_images(digits_dir, tmp_path):
    distill(configure("whole", ipc=0), digits_dir, [], 0, tmp_path / "set")
    whole = read_distilled(tmp_path / "set/distilled.safetensors", digits_dir)
    assert len(whole.images) == 0 and len(whole.indices) == 1437
    assert (tmp_path / "set/distilled.safetensors").stat().st_size < 40_000


def test_without_the_held_out_tenth_no_image_of_it_is_seen(digits_dir, tmp_path):
    held = set(indices(digits_dir).tolist())
    train, _ = load(digits_dir, "train")
    config = configure("random", ipc=60).model_copy(update={"split": "fit"})
    distill(config, digits_dir, [], 0, tmp_path / "random")
    chosen = read_distilled(tmp_path / "random/distilled.safetensors", digits_dir)
    assert len(chosen.indices) == 600 and not held & set(chosen.indices.tolist())
    assert torch.equal(chosen.images, train[chosen.indices].float() / 255)  # positions are those in all of train
    config = configure("dm", ipc=100, iterations=0, steps=[]).model_copy(update={"split": "fit"})
    distill(config, digits_dir, [[]], 0, tmp_path / "dm")
    made = (read_distilled(tmp_path / "dm/distilled.safetensors", digits_dir).images * 255).round().byte()
    left_out = {bytes(image.numpy().tobytes()) for image in train[sorted(held)]}
    assert not any(image.numpy().tobytes() in left_out for image in made)


def test_the_loop_descends(digits_dir, tmp_path):
    distill(configure("dm", iterations=60, steps=[], batch_real=64, augment="none", extractor={"network": "convnet3_in_w8", "mode": "fixed"}),
            digits_dir, [[]], 0, tmp_path / "set")  # fmt: skip
    rows = [line.split(",") for line in (tmp_path / "set/curve.csv").read_text().splitlines()]
    assert rows[0][:3] == ["step", "loss", "grad_norm"]
    assert float(rows[-1][1]) < 0.5 * float(rows[1][1])


@pytest.mark.slow
def test_dm_beats_random_selection(digits_dir, tmp_path):
    """At one image per class, over six sets, p < 0.01 (Welch)."""
    from scipy.stats import ttest_ind

    protocol = config_of("dc_short")(epochs=60)
    means = {}
    for method in ("dm", "random"):
        fields = {"iterations": 60, "batch_real": 32, "steps": [], "extractor": {"network": "convnet3_in_w16"}} if method == "dm" else {}
        means[method] = []
        for seed in range(6):
            out = tmp_path / method / str(seed)
            distill(configure(method, ipc=1, **fields), digits_dir, [[]], seed, out)
            scores = evaluate(read_distilled(out / "distilled.safetensors", digits_dir), "convnet3_in_w16", "dc_short", protocol, digits_dir,
                              seed, range(2))  # fmt: skip
            means[method].append(sum(score.accuracy_last for score in scores) / 2)
    assert ttest_ind(means["dm"], means["random"], equal_var=False, alternative="greater").pvalue < 0.01, means


def test_the_state_holds_everything_by_name(digits_dir, tmp_path):
    with pytest.raises(Stopped):
        distill(configure("dm"), digits_dir, [[]], 0, tmp_path / "parts", stop=after(2))
    tensors, meta = load_tensors(tmp_path / "parts/.resume/state.safetensors")
    assert set(tensors) == {"parameterization.images", "optimizer.0.momentum_buffer"}
    assert meta["step"] == 2 and len(meta["rows"]) == 2
    assert Loop.__doc__ and Path(tmp_path / "parts/.resume/steps/0.safetensors").exists()
