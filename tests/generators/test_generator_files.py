"""Generators from files: what their labels mean, which images they make, and the file of a user's."""

import re
import shutil

import pytest
import torch

from dd.__main__ import main
from dd.artifacts import load_tensors, save_tensors, sha256_file
from dd.config import parse
from dd.data.registry import DATASETS
from dd.errors import ArtifactError, ConfigError, DataError
from dd.generators import files, stylegan_xl
from dd.generators._alias_free import Facts
from dd.generators.files import FILES, GeneratorFile, check, class_ids, classes_of, fitting, install

# The published lists of the ten subsets, in the order of their labels.
PUBLISHED = {
    "imagenet_a": [255, 376, 984, 364, 500, 986, 333, 576, 148, 135],
    "imagenet_b": [129, 916, 90, 275, 995, 874, 102, 259, 685, 139],
    "imagenet_c": [565, 94, 554, 535, 92, 392, 291, 136, 324, 11],
    "imagenet_d": [9, 258, 13, 262, 19, 339, 321, 24, 93, 322],
    "imagenet_e": [816, 96, 100, 145, 739, 713, 783, 76, 688, 326],
    "imagenette": [0, 217, 482, 491, 497, 566, 569, 571, 574, 701],
    "imagewoof": [193, 182, 258, 162, 155, 167, 159, 273, 207, 229],
    "imagesquawk": [84, 130, 88, 144, 145, 22, 96, 9, 100, 89],
    "imagefruit": [953, 954, 949, 950, 951, 957, 952, 945, 943, 948],
    "imagemeow": [281, 282, 283, 284, 285, 291, 292, 290, 289, 287],
}


@pytest.mark.parametrize("subset", PUBLISHED)
def test_labels_are_imagenets_numbers_in_the_published_order(subset):
    for size in (128, 256):
        assert class_ids(f"{subset}_{size}") == PUBLISHED[subset]
        assert classes_of(f"stylegan_xl_{size}", f"{subset}_{size}") == PUBLISHED[subset]
    if subset in DATASETS:  # at 224 pixels
        assert class_ids(subset) == PUBLISHED[subset]


def test_what_is_no_part_of_imagenet_has_no_such_numbers():
    assert class_ids("imagenet64") == list(range(1000))
    for dataset in ("digits", "cifar10", "tiny_imagenet", "imagenet32", "a_folder_of_mine"):
        assert class_ids(dataset) is None
    assert classes_of("mini_w16", "imagenet64") is None  # trained on these labels themselves
    assert classes_of("stylegan_xl_cifar10", "cifar10") == list(range(10))


def test_a_generator_makes_images_of_its_own_size_and_classes():
    for size in (128, 256):
        assert fitting(f"stylegan_xl_{size}") == [name for name in DATASETS if re.fullmatch(rf"image[a-z_]+_{size}", name)]
        assert len(fitting(f"stylegan_xl_{size}")) == 10
    assert fitting("stylegan_xl_cifar10") == ["cifar10"]
    check("stylegan_xl_256", "imagemeow_256")
    with pytest.raises(ConfigError, match=r"stylegan_xl_256 makes images of \(3, 256, 256\).*those of imagemeow_128 are \(3, 128, 128\)"):
        check("stylegan_xl_256", "imagemeow_128")
    with pytest.raises(ConfigError, match="mine is a dataset of your own; datasets that it can make: imagenet_a_128"):
        check("stylegan_xl_128", "mine")
    with pytest.raises(ConfigError, match="those of cifar100 are"):  # the same size, other classes
        check("stylegan_xl_cifar10", "cifar100")


NAME = "stylegan_xl_cifar10"


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """Return a file of a generator of one stage that makes 3x32x32 images of 3 classes, which stands for CIFAR-10's here."""
    monkeypatch.setitem(FILES, NAME, GeneratorFile((32, 32), 3, "cifar10", "the published file"))
    layer = {"name": "L0", "inputs": 4, "outputs": 3, "in_size": 32, "out_size": 32, "kernel": 1, "up": 1, "down": 1, "up_taps": 1,
             "down_taps": 1, "padding": [0, 0], "colours": True, "clamp": 256.0}  # fmt: skip
    facts = {"z_dim": 4, "w_dim": 8, "classes": 3, "embedding": 5, "mapping_layers": 2, "output_scale": 0.25,
             "input": {"channels": 4, "size": 32, "sampling_rate": 32.0, "bandwidth": 2.0}, "layers": [layer]}  # fmt: skip
    net = stylegan_xl.StyleGANXL(parse(Facts, facts, "test"))
    numbers = torch.Generator().manual_seed(0)
    tensors = {key: torch.rand(value.shape, generator=numbers) + 0.1 for key, value in net.state_dict().items()}
    net.load_state_dict(tensors)
    z, y = torch.randn(2, 4, generator=numbers), torch.tensor([2, 0])
    with torch.no_grad():
        ws = net.map(z, y)
        f = [net.advance(net.start(ws), ws, 0, cut) for cut in range(2)]
        samples = {"z": z, "y": y, "ws": ws, "rms": torch.stack([x.square().mean().sqrt() for x in f]), "images": net(z, y)}
    path = tmp_path / "converted.safetensors"
    held = {f"generator.{key}": value for key, value in tensors.items()} | {f"check.{key}": value for key, value in samples.items()}
    save_tensors(path, held, {"config": {"generator": "stylegan_xl"}, "stylegan_xl": facts})
    return path


def test_a_converted_file_is_checked_and_installed_as_it_is(converted, tmp_path):
    out = tmp_path / "files" / f"{NAME}.safetensors"
    install(NAME, converted, sha256_file(converted), out)
    assert out.read_bytes() == converted.read_bytes()
    assert stylegan_xl.load(out).num_stages == 1
    config = tmp_path / "config.json"
    config.write_text(f'{{"stage": "generator_file", "version": 1, "generator": "{NAME}", "sha256": null}}')
    out.unlink()
    assert main(["generator_file", "--config", str(config), "--file", str(converted), "--out", str(out)]) == 0
    assert out.read_bytes() == converted.read_bytes()


def test_a_missing_file_says_what_to_do(tmp_path, capsys):
    config, out = tmp_path / "config.json", tmp_path / "out.safetensors"
    config.write_text('{"generator": "stylegan_xl_128", "sha256": null}')
    assert main(["generator_file", "--config", str(config), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    for word in (
        "stylegan_xl_128 is not on this machine",
        "imagenet128.pkl",
        "docs/generators.md",
        "generators: {stylegan_xl_128: {path: FILE}}",
    ):
        assert word in said
    assert not out.exists()


def test_other_files_are_refused(converted, tmp_path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(ConfigError, match="no such file"):
        install(NAME, tmp_path / "nowhere.safetensors", None, out)
    with pytest.raises(ConfigError, match=r"cifar10.pkl'; allowed: a .safetensors file"):
        install(NAME, tmp_path / "cifar10.pkl", None, out)
    with pytest.raises(ConfigError, match="'stylegan_xl_129'; did you mean 'stylegan_xl_128'"):
        install("stylegan_xl_129", converted, None, out)
    with pytest.raises(DataError, match=rf"sha256 is {sha256_file(converted)}, generators.{NAME}.sha256 asks for {'b' * 64}"):
        install(NAME, converted, "b" * 64, out)
    with pytest.raises(ConfigError, match="sha256: value 'abc'"):
        install(NAME, converted, "abc", out)
    with pytest.raises(DataError, match="makes images of 3x32x32 of 3 classes; stylegan_xl_128 is images of 3x128x128 of 1000 classes"):
        install("stylegan_xl_128", converted, None, out)
    tensors, meta = load_tensors(converted)
    tensors["check.images"] = tensors["check.images"] + 0.1
    other = tmp_path / "other.safetensors"
    save_tensors(other, tensors, meta)
    with pytest.raises(ArtifactError, match="the samples of the authors' code are not reproduced"):
        install(NAME, other, None, out)
    shutil.copy(converted, other)
    content = bytearray(other.read_bytes())
    content[-20] ^= 1
    other.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="damaged"):
        install(NAME, other, None, out)
    assert not out.exists()


def test_every_file_is_one_of_known_classes():
    for name, file in files.FILES.items():
        assert name.startswith("stylegan_xl_")
        assert file.classes == (1000 if file.knows == "imagenet" else 10)
