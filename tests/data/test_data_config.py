"""The `datasets` section of config.yaml, and the registry that stands behind it."""

import re
import subprocess
import sys

import pytest

from dd.config import hashed, parse
from dd.data.config import DatasetConfig, check_paths, load_datasets
from dd.data.registry import DATASETS, raw_files, spec
from dd.errors import ConfigError

WHERE = "config.yaml: datasets"
FOLDER = {"kind": "folder", "path": "x"}


def refused(section, *words):
    with pytest.raises(ConfigError, match="(?s)^" + ".*".join(map(re.escape, ("config.yaml: datasets.", *words)))):
        load_datasets(section, WHERE)


def test_neither_registry_nor_configuration_needs_torch():
    code = "import sys; sys.modules['torch'] = sys.modules['pandas'] = sys.modules['sklearn'] = None; import dd.data.config"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", DATASETS)
def test_registered(name):
    known = spec(name)
    assert known.name == name and len(set(known.classes)) == len(known.classes)
    assert 1 <= known.smallest_class <= known.train // len(known.classes)
    for mean, std in known.lineages.values():
        assert len(mean) == len(std) == known.channels and all(0 < value < 1 for value in (*mean, *std))
    assert known.obtain if not known.downloads else not known.obtain
    found = known.wnids or known.positions
    assert len(set(found)) == len(found) == (len(known.classes) if known.layout == "imagenet" and not known.numbered else 0)
    assert not (known.wnids and known.positions) and all(0 <= position < 1000 for position in known.positions)
    assert not known.numbered or known.classes == tuple(map(str, range(len(known.classes))))
    assert set(known.lineages) in ({"dc", "idc"}, set())
    assert raw_files(name) == [item.file for item in known.downloads] and len(set(raw_files(name))) == len(raw_files(name))
    for item in known.downloads:
        if item.checksum is None:  # then the address is all that is known of the file
            assert item.file.endswith(".zip") and all(url.startswith("https://") for url in item.urls)
        else:  # also what makes plain http acceptable
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", item.checksum)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", item.file)  # stays in its folder
        assert item.urls and all(url.startswith(("https://", "http://")) and url.endswith("/" + item.file) for url in item.urls)
        assert sorted(item.urls, key=lambda url: url.startswith("http:")) == list(item.urls), "https before http"
    assert known.fingerprint is None or re.fullmatch("[0-9a-f]{64}", known.fingerprint)
    assert known.flip is (name not in ("digits", "mnist", "svhn", "mini_speech_commands"))


def test_speech_is_registered_as_the_papers_have_it():
    known = spec("mini_speech_commands")
    assert known.classes == ("yes", "no", "go", "stop", "left", "right", "up", "down")
    assert (known.channels, known.size, known.train, known.test, known.smallest_class) == (1, (64, 64), 7000, 1000, 875)
    assert known.lineages == {} and known.layout == "speech" and known.fingerprint is None


def test_the_papers_normalisation():
    assert spec("cifar10").lineages["dc"] == spec("cifar10").lineages["idc"] == spec("cifar100").lineages["idc"]
    assert spec("cifar10").lineages["dc"] == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert spec("cifar100").lineages["dc"] == ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
    assert spec("digits").lineages == {}


def test_pathmnist_and_imagenet_are_registered_as_the_papers_have_them():
    known = spec("pathmnist")
    assert (known.size, known.train, known.test, known.smallest_class, len(known.classes)) == ((32, 32), 89_996, 7180, 7886, 9)
    assert known.train == sum((9366, 9509, 10360, 10401, 8006, 12182, 7886, 9401, 12885))
    assert known.lineages["dc"] == ((0.7406, 0.5330, 0.7059), (0.1237, 0.1767, 0.1244))
    known = spec("imagenet32")
    assert (known.size, known.train, known.test, known.smallest_class, len(known.classes)) == ((32, 32), 1_281_167, 50_000, 732, 1000)
    for name, first, last in (("imagenette", "tench", "parachute"), ("imagefruit", "pineapple", "Granny Smith")):
        known = spec(name)
        assert (known.size, known.test, len(known.classes), known.classes[0], known.classes[-1]) == ((224, 224), 500, 10, first, last)
        assert known.lineages["dc"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in known.wnids)
    assert list(spec("imagenette").wnids) == sorted(spec("imagenette").wnids)  # as the positions in MTT's list are
    positions = [953, 954, 949, 950, 951, 957, 952, 945, 943, 948]
    order = sorted(range(10), key=positions.__getitem__)
    assert [spec("imagefruit").wnids[n] for n in order] == sorted(spec("imagefruit").wnids)
    assert [spec(name).counted for name in ("imagenette", "imagefruit", "imagenet32")] == [True, False, True]


def test_imagenet_at_64x64_is_registered_as_the_papers_have_it():
    for name, train, test, smallest, classes in (
        ("tiny_imagenet", 100_000, 10_000, 500, 200),
        ("imagenet64", 1_281_167, 50_000, 732, 1000),
    ):
        known = spec(name)
        assert (known.channels, known.size, known.train, known.test, known.smallest_class) == (3, (64, 64), train, test, smallest)
        assert len(known.classes) == classes and known.counted and known.flip and known.numbered and not known.wnids
        assert known.lineages["dc"] == known.lineages["idc"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    (item,) = spec("tiny_imagenet").downloads
    assert item.urls[-1] == "http://cs231n.stanford.edu/tiny-imagenet-200.zip" and item.checksum == "md5:90528d7ca1a48142e341f4ef8d21d0de"


def test_an_unknown_dataset():
    with pytest.raises(ConfigError, match=r"'cifar-10'; did you mean 'cifar10'. allowed: cifar10, cifar100, digits"):
        spec("cifar-10")


def test_defaults():
    configs = load_datasets({}, WHERE)
    assert {name: config.source.kind for name, config in configs.items()} == {
        name: "digits" if name == "digits" else "download" for name in DATASETS
    }


def test_a_section():
    section = {"cifar10": {"source": {"kind": "parquet", "path": "p"}}, "mine": {"source": FOLDER, "mean": [0.5], "flip": False}}
    configs = load_datasets(section, WHERE)
    assert set(configs) == {*DATASETS, "mine"}
    assert configs["cifar10"].source.path == "p" and configs["mine"].mean == (0.5,) and configs["mine"].flip is False
    for config in configs.values():  # what a job is given
        assert parse(DatasetConfig, hashed(config), "job") == config
    assert load_datasets({"cifar10": {"fingerprint": "a" * 64}}, WHERE)["cifar10"].source.kind == "download"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"mine": {"source": {"kind": "foldr", "path": "x"}}}, ["mine: source.kind: value 'foldr'; did you mean 'folder'"]),
        (
            {"mine": {"source": {"path": "x"}}},
            ["mine: source.kind: value None", "allowed: digits, download, folder, idx, imagenet, npz, parquet, wav"],
        ),
        ({"mine": {"source": {"kind": "folder"}}}, ["mine: source.folder.path: is missing"]),
        ({"mine": {"source": {**FOLDER, "paht": 1}}}, ["mine: source.folder.paht: unknown key"]),
        ({"mine": {"source": {"kind": "folder", "path": 3}}}, ["mine: source.folder.path: value 3"]),
        ({"mine": {"source": FOLDER, "std": [0.0]}}, ["mine: std.0: value 0.0"]),
        ({"mine": {"source": FOLDER, "men": [0.5]}}, ["mine: men: unknown key; did you mean 'mean'"]),
        ({"mine": {"source": FOLDER, "fingerprint": "abc"}}, ["mine: fingerprint: value 'abc'"]),
        ({"mine": {"source": {"kind": "wave", "path": "x"}}}, ["mine: source.kind: value 'wave'; did you mean 'wav'"]),
        ({"mine": {"source": {"kind": "wav"}}}, ["mine: source.wav.path: is missing"]),
        ({"mine": {"source": {"kind": "wav", "path": "x"}, "flip": True}}, ["mine: flip: value True: is not for sounds"]),
        (
            {"cifar10": {"source": {"kind": "wav", "path": "x"}}},
            ["cifar10: source.kind: value 'wav'", "allowed: download, parquet, folder"],
        ),
        ({"mini_speech_commands": {"source": FOLDER}}, ["source.kind: value 'folder': is not for mini_sp", "allowed: download, wav"]),
        ({"mini_speech_command": {"source": {"kind": "download"}}}, ["did you mean 'mini_speech_commands'", "folder, idx or wav"]),
        ({"mine": {"source": {"kind": "npz", "path": "x"}}}, ["mine: source.kind: value 'npz': 'mine' is not a registered dataset"]),
        ({"mine": {"source": {"kind": "imagenet", "path": "x"}}}, ["value 'imagenet': 'mine' is not a registered", "need kind parquet"]),
        ({"imagenet32": {"source": FOLDER}}, ["imagenet32: source.kind: value 'folder': is not for imagenet32; allowed: npz"]),
        ({"imagenet32": {"source": {"kind": "npz"}}}, ["imagenet32: source.npz.path: is missing"]),
        ({"imagenette": {"source": {"kind": "download"}}}, ["value 'download': is not for imagenette; allowed: imagenet"]),
        ({"imagenette": {"fingerprint": "a" * 64}}, ["imagenette: source: is missing: write {kind: imagenet, path: ...}"]),
        ({"imagenet64": {"source": FOLDER}}, ["value 'folder': is not for imagenet64; allowed: imagenet"]),
        (
            {"tiny_imagenet": {"source": {"kind": "idx", "path": "x"}}},
            ["'idx': is not for tiny_imagenet; allowed: download, parquet, folder"],
        ),
        ({"pathmnist": {"source": {"kind": "imagenet", "path": "x"}}}, ["allowed: download, npz, parquet, folder, idx"]),
        ({"mnist": {"source": {"kind": "npz", "path": "x"}}}, ["value 'npz': is not for mnist; allowed: download, parquet, folder, idx"]),
        ({"mine": {}}, ["mine: source: is missing", "kind"]),
        ({"mine": {"source": "x"}}, ["mine: source: value 'x'", "kind"]),
        ({"mine": "x"}, ["mine: value 'x': must be keys and values"]),
        ({"cifar1": {"source": {"kind": "download"}}}, ["cifar1: source.kind: value 'download'", "did you mean 'cifar10'", "parquet"]),
        ({"cifar10": {"source": {"kind": "digits"}}}, ["cifar10: source.kind: value 'digits'", "allowed: download, parquet"]),
        ({"digits": {"source": {"kind": "download"}}}, ["digits: source.kind: value 'download'", "allowed: digits, parquet"]),
        ({"cifar10": {"mean": [0.5, 0.5, 0.5]}}, ["cifar10: mean: is fixed"]),
        ({"cifar10": {"flip": False}}, ["cifar10: flip: is fixed"]),
        *(
            ({name: {"source": FOLDER}}, [f"{name}: a dataset's name is letters"])
            for name in ("../mine", "/mine", "a/b", "..", ".mine", "-mine", "", "a b", "a\n", "a\0", "a;b", "$(a)", "{a}", "ä")
        ),
    ],
    ids=str,
)
def test_mistakes(section, words):
    refused(section, *words)


def test_paths_that_do_not_exist_are_all_named(tmp_path):
    (tmp_path / "file").write_text("")
    section = {
        "mine": {"source": {"kind": "folder", "path": str(tmp_path / "no")}},
        "cifar10": {"source": {"kind": "parquet", "path": str(tmp_path / "file")}},
        "good": {"source": {"kind": "idx", "path": str(tmp_path)}},
        "sounds": {"source": {"kind": "wav", "path": str(tmp_path / "none")}},
    }
    with pytest.raises(ConfigError) as caught:
        check_paths(load_datasets(section, WHERE), WHERE)
    assert sorted(str(caught.value).splitlines()) == [
        f"config.yaml: datasets.cifar10: source.path: value '{tmp_path}/file': is a file, must be a folder",
        f"config.yaml: datasets.mine: source.path: value '{tmp_path}/no': no such folder",
        f"config.yaml: datasets.sounds: source.path: value '{tmp_path}/none': no such folder",
    ]
