"""Teachers against torchvision and against CLIP's encoder written out; and what `install` says of every wrong file."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from dd import networks, teachers
from dd.artifacts import read_meta
from dd.errors import ConfigError, DataError
from dd.rng import stream
from dd.teachers import TEACHERS, install
from dd.train.pretrain import load_network

State = dict[str, Tensor]
CLIP_BLOCKS = (3, 4, 6, 3)


def narrow(monkeypatch: pytest.MonkeyPatch, name: str, network: str, side: int, classes: int) -> None:
    teacher = dataclasses.replace(TEACHERS[name], network=network, size=(side, side), classes=classes)
    monkeypatch.setitem(teachers.TEACHERS, name, teacher)


# -- what files hold ----------------------------------------------------------------------------------------------------


def filled(shapes: dict[str, tuple[int, ...]], name: str) -> State:
    """Return random weights; what must be positive is, and no norm stays at its default."""
    g = stream(7, name)
    draw = {key: torch.randn(shape, generator=g) / math.prod(shape[1:]) ** 0.5 for key, shape in shapes.items()}
    return {key: value.abs() + 0.5 if key.endswith("running_var") else value for key, value in draw.items()}


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}


def clip_shapes(width: int, grid: int) -> dict[str, tuple[int, ...]]:
    """The tensors of the image encoder in OpenAI's file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for n, (inputs, outputs) in enumerate([(3, width // 2), (width // 2, width // 2), (width // 2, width)], start=1):
        shapes |= {f"visual.conv{n}.weight": (outputs, inputs, 3, 3)} | norm_shapes(f"visual.bn{n}", outputs)
    inputs = width
    for group, count in enumerate(CLIP_BLOCKS):
        inner = width * 2**group
        for block in range(count):
            p = f"visual.layer{group + 1}.{block}"
            shapes |= {f"{p}.conv1.weight": (inner, inputs, 1, 1), f"{p}.conv2.weight": (inner, inner, 3, 3)}
            shapes |= {f"{p}.conv3.weight": (4 * inner, inner, 1, 1)}
            shapes |= norm_shapes(f"{p}.bn1", inner) | norm_shapes(f"{p}.bn2", inner) | norm_shapes(f"{p}.bn3", 4 * inner)
            if block == 0:
                shapes |= {f"{p}.downsample.0.weight": (4 * inner, inputs, 1, 1)} | norm_shapes(f"{p}.downsample.1", 4 * inner)
            inputs = 4 * inner
    shapes["visual.attnpool.positional_embedding"] = (grid**2 + 1, inputs)
    for part, outputs in {"q": inputs, "k": inputs, "v": inputs, "c": 16 * width}.items():
        shapes |= {f"visual.attnpool.{part}_proj.weight": (outputs, inputs), f"visual.attnpool.{part}_proj.bias": (outputs,)}
    return shapes


def clip_embed(x: Tensor, s: State, heads: int) -> Tensor:
    """CLIP's RN50 written out, under the names of its file; heads one by one, all queries."""

    def bn(h: Tensor, name: str) -> Tensor:
        w, b, mean, var = (s[f"visual.{name}.{leaf}"].view(1, -1, 1, 1) for leaf in ("weight", "bias", "running_mean", "running_var"))
        return (h - mean) / (var + 1e-5).sqrt() * w + b

    def half(h: Tensor) -> Tensor:  # means of 2x2; a lone last row or column is a mean of what is there
        cut = [[h[:, :, i : i + 2, j : j + 2].mean((2, 3)) for j in range(0, h.shape[3], 2)] for i in range(0, h.shape[2], 2)]
        return torch.stack([torch.stack(row, -1) for row in cut], -2)

    h = x
    for n in (1, 2, 3):
        h = bn(F.conv2d(h, s[f"visual.conv{n}.weight"], stride=2 if n == 1 else 1, padding=1), f"bn{n}").clamp(min=0)
    h = half(h)
    for group, count in enumerate(CLIP_BLOCKS, start=1):
        for block in range(count):
            p, shrink = f"layer{group}.{block}", group > 1 and block == 0
            r = bn(F.conv2d(h, s[f"visual.{p}.conv1.weight"]), f"{p}.bn1").clamp(min=0)
            r = bn(F.conv2d(r, s[f"visual.{p}.conv2.weight"], padding=1), f"{p}.bn2").clamp(min=0)
            r = bn(F.conv2d(half(r) if shrink else r, s[f"visual.{p}.conv3.weight"]), f"{p}.bn3")
            if block == 0:
                h = bn(F.conv2d(half(h) if shrink else h, s[f"visual.{p}.downsample.0.weight"]), f"{p}.downsample.1")
            h = (r + h).clamp(min=0)
    pixels = h.flatten(2).permute(0, 2, 1)
    tokens = torch.cat([pixels.mean(1, keepdim=True), pixels], 1) + s["visual.attnpool.positional_embedding"]
    q, k, v = (tokens @ s[f"visual.attnpool.{part}_proj.weight"].T + s[f"visual.attnpool.{part}_proj.bias"] for part in "qkv")
    d, out = q.shape[2] // heads, []
    for at in range(0, q.shape[2], d):
        scores = q[:, :, at : at + d] @ k[:, :, at : at + d].transpose(1, 2) / d**0.5
        weight = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out.append(weight @ v[:, :, at : at + d])
    return torch.cat(out, -1)[:, 0] @ s["visual.attnpool.c_proj.weight"].T + s["visual.attnpool.c_proj.bias"]


# -- the networks -------------------------------------------------------------------------------------------------------


def test_parameter_counts() -> None:
    with torch.device("meta"):
        resnet = networks.build("resnet18_tv_bn", 3, (224, 224), 1000)
        clip = networks.build("clip_rn50_bn", 3, (224, 224), 1)
        x = torch.zeros(2, 3, 224, 224)
        assert sum(p.numel() for p in resnet.parameters()) == 11_689_512
        assert sum(p.numel() for p in clip.parameters()) - (1024 + 1) == 38_316_896
        assert [tuple(stage.shape[1:]) for stage in resnet.stages(x)][::2] == [
            (64, 56, 56),
            (64, 56, 56),
            (128, 28, 28),
            (256, 14, 14),
            (512, 7, 7),
        ]
        assert resnet.embed(x).shape == (2, 512)
        assert [tuple(clip.stages(x)[at].shape[1:]) for at in (0, 3, 7, 13, 16)] == [
            (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7),
        ]  # fmt: skip
        assert clip.embed(x).shape == (2, 1024)
        assert clip.blocks[-1].heads == 32


def test_every_tensor_of_clips_file_has_its_place() -> None:
    shapes = clip_shapes(64, 7)
    assert sum(torch.Size(shape).numel() for key, shape in shapes.items() if "running" not in key) == 38_316_896
    with torch.device("meta"):
        ours = networks.build("clip_rn50_bn", 3, (224, 224), 1).state_dict()
    place = lambda key: f"{TEACHERS['clip_rn50'].modules[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}"  # noqa: E731
    placed = {place(key): shape for key, shape in shapes.items()}
    expected = {key: tuple(t.shape) for key, t in ours.items() if not key.startswith("head") and not key.endswith("num_batches_tracked")}
    assert placed == expected


def test_resnet18_is_torchvisions(tmp_path: Path) -> None:
    import torchvision

    theirs = torchvision.models.resnet18(weights=None).eval()
    g = stream(1, "tv")
    for value in theirs.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=g) + 0.5)
    save_file(theirs.state_dict(), tmp_path / "given.safetensors")
    install("resnet18_tv", tmp_path / "given.safetensors", None, tmp_path / "ours.safetensors")
    ours = load_network(tmp_path / "ours.safetensors").eval()
    embed = torch.nn.Sequential(*list(theirs.children())[:-1], torch.nn.Flatten())
    for side in (224, 65):
        x = torch.randn(2, 3, side, side, generator=g)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(ours.embed(x), embed(x), rtol=1e-5, atol=1e-5)
            assert ours.embed(x).std() > 1e-3


@pytest.mark.parametrize(("side", "grid"), [(64, 2), (72, 3)])
def test_clip_is_the_published_encoder(side: int, grid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, "clip_rn50", "clip_rn50_bn_w8", side, 0)
    state = filled(clip_shapes(8, grid), "clip")
    text = {"token_embedding.weight": torch.ones(3, 2), "logit_scale": torch.ones(()), "input_resolution": torch.tensor(224)}
    save_file(state | text, tmp_path / "given.safetensors")
    install("clip_rn50", tmp_path / "given.safetensors", None, tmp_path / "ours.safetensors")
    net = load_network(tmp_path / "ours.safetensors").double().eval()
    x = torch.randn(2, 3, side, side, dtype=torch.float64, generator=stream(2))
    with torch.no_grad():
        expected = clip_embed(x, {key: value.double() for key, value in state.items()}, heads=4)
        assert expected.shape == (2, 128)
        assert (expected[0] - expected[1]).abs().max() > 1e-3
        torch.testing.assert_close(net.embed(x), expected, rtol=1e-9, atol=1e-9)
        assert torch.equal(net(x), torch.zeros(2, 1, dtype=torch.float64))
        with pytest.raises(ConfigError, match="images of another size"):
            net.embed(torch.zeros(1, 3, side + 32, side, dtype=torch.float64))


@pytest.mark.parametrize(("width", "near"), [(7, "8 and 6"), (1, "2")])
def test_clip_needs_an_even_width(width: int, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"width {width} must be even; nearest allowed: {near}$"):
        networks.build(f"clip_rn50_bn_w{width}", 3, (32, 32), 1)


# -- install ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> State:
    """A narrow ResNet-18 under torchvision's names."""
    narrow(monkeypatch, "resnet18_tv", "resnet18_tv_bn_w4", 32, 5)
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (4, 3, 7, 7), "fc.weight": (5, 32), "fc.bias": (5,)} | norm_shapes("bn1", 4)
    inputs = 4
    for group in range(4):
        outputs = 4 * 2**group
        for block in range(2):
            p = f"layer{group + 1}.{block}"
            shapes |= {f"{p}.conv1.weight": (outputs, inputs, 3, 3), f"{p}.conv2.weight": (outputs, outputs, 3, 3)}
            shapes |= norm_shapes(f"{p}.bn1", outputs) | norm_shapes(f"{p}.bn2", outputs)
            if inputs != outputs:
                shapes |= {f"{p}.downsample.0.weight": (outputs, inputs, 1, 1)} | norm_shapes(f"{p}.downsample.1", outputs)
            inputs = outputs
    return filled(shapes, "resnet")


def written(tmp_path: Path, state: State) -> Path:
    path = tmp_path / "given.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def test_the_checkpoint_says_what_it_is_and_the_sha256_of_its_source(weights: State, tmp_path: Path) -> None:
    path, out = written(tmp_path, weights), tmp_path / "deep" / "ours.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    before = torch.get_rng_state()
    install("resnet18_tv", path, digest, out)
    assert torch.equal(torch.get_rng_state(), before)
    assert read_meta(out) == {
        "config": {"stage": "teacher", "version": 1, "teacher": "resnet18_tv", "network": "resnet18_tv_bn_w4"},
        "seed": 0, "channels": 3, "size": [32, 32], "classes": 5, "source_sha256": digest,
    }  # fmt: skip
    first = out.read_bytes()
    install("resnet18_tv", path, None, out)
    assert out.read_bytes() == first


def test_every_tensor_comes_back(weights: State, tmp_path: Path) -> None:
    install("resnet18_tv", written(tmp_path, weights), None, tmp_path / "ours.safetensors")
    state = load_network(tmp_path / "ours.safetensors").state_dict()
    back = {}
    for theirs, ours in TEACHERS["resnet18_tv"].modules.items():
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            if f"{ours}.{leaf}" in state:
                back[f"{theirs}.{leaf}"] = state[f"{ours}.{leaf}"]
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


def test_half_precision_and_counters_are_taken(weights: State, tmp_path: Path) -> None:
    halves = {key: value.half() for key, value in weights.items()}
    counters = {key.replace("running_mean", "num_batches_tracked"): torch.tensor(9) for key in weights if key.endswith("running_mean")}
    install("resnet18_tv", written(tmp_path, halves | counters), None, tmp_path / "ours.safetensors")
    state = load_network(tmp_path / "ours.safetensors").state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    assert torch.equal(state["blocks.3.shortcut.1.running_var"], weights["layer2.0.downsample.1.running_var"].half().float())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layer3.1.bn2.running_var": None}, r"tensors missing: layer3\.1\.bn2\.running_var\. "),
        ({"layer5.0.conv1.weight": torch.ones(2)}, r"tensors unknown: layer5\.0\.conv1\.weight"),
        ({"fc.weight": torch.ones(6, 32)}, r"tensors of another shape: fc\.weight \(6, 32\) instead of \(5, 32\)"),
        ({"fc.bias": torch.ones(5, dtype=torch.int32)}, r"not of floating-point numbers: fc\.bias \(torch\.int32\)"),
        ({"bn1.bias": torch.tensor([0.0, 1.0, float("nan"), 0.0])}, r"not finite: bn1\.bias"),
        ({"bn1.bias": torch.tensor([0.0, 1e300, 0.0, 0.0], dtype=torch.float64)}, r"not finite: bn1\.bias"),
        (
            {"fc.bias": None, "a": torch.ones(1), "fc.weight": torch.ones(1)},
            r"missing: fc\.bias; .*shape: fc\.weight.*; tensors unknown: a",
        ),
    ],
)
def test_wrong_tensors_are_named(weights: State, tmp_path: Path, change: dict[str, Tensor | None], complaint: str) -> None:
    state = {key: value for key, value in (weights | change).items() if value is not None}
    with pytest.raises(DataError, match=complaint) as caught:
        install("resnet18_tv", written(tmp_path, state), None, tmp_path / "ours.safetensors")
    assert "given.safetensors" in str(caught.value)
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_file_of_something_else_names_a_few_tensors_and_how_many_more(weights: State, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing: .*, .*, .*, .* and \d+ more; tensors unknown: a"):
        install("resnet18_tv", written(tmp_path, {"a": torch.ones(1)}), None, tmp_path / "ours.safetensors")


def test_another_sha256_is_refused(weights: State, tmp_path: Path) -> None:
    path = written(tmp_path, weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=rf"given\.safetensors: sha256 is {digest}, teachers\.resnet18_tv\.sha256 asks for {'0' * 64}"):
        install("resnet18_tv", path, "0" * 64, tmp_path / "ours.safetensors")
    for malformed in ("abc", digest.upper(), digest + "\n", ""):
        with pytest.raises(ConfigError, match=rf"sha256: value .*allowed: 64 hex digits, such as {digest}"):
            install("resnet18_tv", path, malformed, tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_refused(damage: str, weights: State, tmp_path: Path) -> None:
    path = written(tmp_path, weights)
    path.write_bytes({"cut": path.read_bytes()[:-100], "empty": b"", "text": b"not weights at all" * 9}[damage])
    with pytest.raises(DataError, match=r"given\.safetensors: is damaged or not a safetensors file"):
        install("resnet18_tv", path, None, tmp_path / "ours.safetensors")


@pytest.mark.parametrize(("name", "where"), [("resnet18_tv", r"resnet18-f37072fd\.pth"), ("clip_rn50", r"RN50\.pt")])
def test_without_a_file_it_says_where_to_get_it_and_what_to_set(name: str, where: str, tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    with pytest.raises(ConfigError, match=rf"{where}.*docs/teachers\.md.*teachers: {{{name}: {{path: FILE}}}}"):
        install(name, None, None, out)
    with pytest.raises(ConfigError, match=rf"teachers: {name}: path: value '.*absent\.safetensors': no such file.*{where}"):
        install(name, tmp_path / "absent.safetensors", None, out)
    (tmp_path / "w.PTH").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"w\.PTH'; allowed: a \.safetensors file.*docs/teachers\.md"):
        install(name, tmp_path / "w.PTH", None, out)
    assert not out.exists()


def test_an_unknown_teacher_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no teacher 'resnet18tv'; did you mean 'resnet18_tv'\? allowed: clip_rn50, resnet18_tv"):
        install("resnet18tv", None, None, Path("x"))


def test_the_page_names_every_teacher_and_its_network() -> None:
    page = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text(encoding="utf-8")
    for name, teacher in TEACHERS.items():
        assert f"| `{name}` | `{teacher.network}`" in page
        assert networks.parse(teacher.network)["norm"] == "bn"
        for address in (word.rstrip(",") for word in teacher.file.split() if word.startswith("https")):
            assert address in page


def test_plans_are_read_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from dd.teachers import TEACHERS; print(*sorted(TEACHERS))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["clip_rn50", "resnet18_tv"], done.stderr
