"""Files of StyleGAN-XL: what the conversion script writes, what is refused, and that the samples of the source are reproduced."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from published_xl import Published, published

from dd.artifacts import load_tensors, save_tensors
from dd.errors import ArtifactError, ConfigError
from dd.generators import stylegan_xl
from dd.train.gan import load_generator


def changed(path, tmp_path, tensors=(), **meta):
    """Return the path of a copy with other metadata and tensors."""
    held, old = load_tensors(path)
    out = tmp_path / "changed.safetensors"
    save_tensors(out, held | dict(tensors), old | meta)
    return out


def test_a_loaded_generator_is_frozen_and_its_facts_are_those_of_the_source(tiny, converted):
    g = stylegan_xl.load(converted)
    assert not g.training
    assert not any(p.requires_grad for p in g.parameters())
    assert {p.dtype for p in g.state_dict().values()} == {torch.float32}
    assert json.loads(g.facts.model_dump_json()) == json.loads(json.dumps(tiny[0]))
    assert (g.channels, g.size, g.classes) == (3, (32, 32), 3)
    _, meta = load_tensors(converted)
    assert meta["config"]["generator"] == "stylegan_xl"
    assert meta["source_sha256"] == "0" * 64


def test_the_check_reproduces_the_samples_of_the_source_and_sees_where_they_differ(converted, tmp_path):
    assert max(stylegan_xl.check(converted).values()) < 1e-4
    tensors, _ = load_tensors(converted)
    worse = {"generator.stages.3.magnitude": tensors["generator.stages.3.magnitude"] * 1.5}
    with pytest.raises(ArtifactError, match=r"not reproduced.*from cut 4 on"):
        stylegan_xl.check(changed(converted, tmp_path, worse))
    with pytest.raises(ArtifactError, match="not reproduced: ws nan"):
        stylegan_xl.check(changed(converted, tmp_path, {"check.ws": tensors["check.ws"] * math.nan}))
    few = {name: value for name, value in tensors.items() if name != "check.rms"}
    save_tensors(tmp_path / "few.safetensors", few, load_tensors(converted)[1])
    with pytest.raises(ArtifactError, match=r"check\.rms is missing"):
        stylegan_xl.check(tmp_path / "few.safetensors")
    assert stylegan_xl.load(tmp_path / "few.safetensors").num_stages == 6


def test_damaged_and_foreign_files_are_refused_with_reasons(converted, tmp_path):
    tensors, meta = load_tensors(converted)
    facts = meta["stylegan_xl"]

    def message(given=(), **other):
        with pytest.raises(ArtifactError) as error:
            stylegan_xl.load(changed(converted, tmp_path, given, **other))
        return str(error.value)

    assert "config.generator is 'mini'" in message(config={"generator": "mini"})
    assert "config.generator is None" in message(config=None)
    assert "w_dim: is missing" in message(stylegan_xl={key: value for key, value in facts.items() if key != "w_dim"})
    assert "z_dim: value 'four'" in message(stylegan_xl=facts | {"z_dim": "four"})
    layers = [dict(layer) for layer in facts["layers"]]
    layers[2]["out_size"] += 1
    text = message(stylegan_xl=facts | {"layers": layers})
    assert "layers.2 (L2): out_size: value" in text
    assert "layers.3 (L3): takes" in text
    layers = [*facts["layers"][:-1], facts["layers"][-1] | {"colours": False}]
    assert "layers.5 (L5): colours: value False" in message(stylegan_xl=facts | {"layers": layers})
    weight = tensors["generator.stages.1.weight"]
    assert "unknown: odd" in message({"generator.odd": weight})
    assert "another shape: stages.1.weight" in message({"generator.stages.1.weight": weight[:, :1]})
    assert "not of float32: stages.1.weight (torch.float64)" in message({"generator.stages.1.weight": weight.double()})
    assert "not finite: stages.1.weight" in message({"generator.stages.1.weight": weight / 0})
    fewer = {name: value for name, value in tensors.items() if name != "generator.input.mix"}
    save_tensors(tmp_path / "fewer.safetensors", fewer, meta)
    with pytest.raises(ArtifactError, match=r"missing: input\.mix"):
        stylegan_xl.load(tmp_path / "fewer.safetensors")
    with pytest.raises(ArtifactError, match="no such file"):
        stylegan_xl.load(tmp_path / "absent.safetensors")
    broken = bytearray(converted.read_bytes())
    broken[-5] ^= 1
    (tmp_path / "broken.safetensors").write_bytes(broken)
    with pytest.raises(ArtifactError, match="damaged"):
        stylegan_xl.load(tmp_path / "broken.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        stylegan_xl.load(tmp_path / "broken.safetensors")


def test_the_conversion_says_what_it_does_not_know(script):
    def fresh(**other):
        torch.manual_seed(0)
        facts, filters = published(16, 4, [], base=16, widest=3)
        facts |= {"z_dim": 4, "w_dim": 8, "classes": 3, "embedding": 5}
        return Published(facts | other, filters)

    def message(change):
        g = fresh()
        change(g)
        with pytest.raises(script.Unexpected) as error:
            script.convert(g, "")
        return str(error.value)

    assert "w_avg: this is no generator" in message(lambda g: delattr(g.mapping, "w_avg"))
    assert "one row for each class" in message(lambda g: g.mapping.register_buffer("w_avg", torch.zeros(8)))
    assert "layer L1 (Layer) lacks up_taps; it has affine, bias" in message(lambda g: delattr(g.synthesis.L1, "up_taps"))
    assert "stages.1.affine (Linear) lacks weight_gain" in message(
        lambda g: g.register_forward_hook(lambda *_: delattr(g.synthesis.L1.affine, "weight_gain"))
    )
    assert "stages.1.affine: activation 'relu'; expected 'linear'" in message(
        lambda g: setattr(g.synthesis.L1.affine, "activation", "relu")
    )
    assert "output_scale: found [0.25, 3.0]" in message(lambda g: setattr(g.mapping, "output_scale", 3.0))
    assert "the images are not output_scale times" in message(lambda g: setattr(g, "forward", lambda z, c: Published.forward(g, z, c) + 1))
    assert "not all numbers are finite" in message(lambda g: g.mapping.w_avg.fill_(math.inf))
    assert "the layer called as number 0 does not read style 1" in message(lambda g: g.synthesis.L0.register_forward_pre_hook(twist))
    assert "in_size" in message(lambda g: setattr(g.synthesis.L1, "in_size", np.array([36, 35])))
    assert "padding" in message(lambda g: g.synthesis.L1.padding.__setitem__(3, 99))


def twist(layer, given):
    """Let a layer read another style than its own."""
    return given[0], given[1] * 1.1


def test_the_script_runs_as_a_program_on_a_pickle_that_the_authors_code_reads(script, tmp_path, monkeypatch, capsys, tiny):
    code = tmp_path / "code"
    code.mkdir()
    (code / "legacy.py").write_text(
        "import held\n\ndef load_network_pkl(file):\n    assert file.read() == b'pickle'\n    return held.content\n"
    )
    (code / "held.py").write_text("content = {'G': 1}\n")
    (tmp_path / "g.pkl").write_bytes(b"pickle")
    out = tmp_path / "g.safetensors"
    monkeypatch.setattr("sys.argv", ["convert", str(tmp_path / "g.pkl"), str(out), "--code", str(code)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match="has no G_ema; it has G"):
        script.main()
    assert not out.exists()
    sys.modules["held"].content["G_ema"] = tiny[1]
    script.main()
    assert "stage  5  L5" in capsys.readouterr().out
    assert max(stylegan_xl.check(out).values()) < 1e-4


def test_a_converted_file_is_loaded_as_any_generator_with_the_classes_of_a_dataset(converted, tmp_path):
    g, same = load_generator(converted, classes=[2, 0]), stylegan_xl.load(converted, classes=[2, 0])
    assert isinstance(g, stylegan_xl.StyleGANXL)
    assert not g.training
    assert not any(p.requires_grad for p in g.parameters())
    assert g.classes == 2
    z, y = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    assert torch.equal(g(z, y), same(z, y))
    torch.testing.assert_close(g(z, y), stylegan_xl.load(converted)(z, torch.tensor([2, 0])), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match=r"tiny\.safetensors: classes: is missing; a StyleGAN-XL needs"):
        load_generator(converted)
    for wrong, named in (([0, 3], r"\[3\]"), ([0, 1, 1], r"\[1\]"), ([0, 1, 2, -1], r"\[-1\]"), ([], r"\[\]")):
        with pytest.raises(ConfigError, match=rf"classes: value {named}; allowed: 0 to 2, each once, at least one"):
            load_generator(converted, classes=wrong)
    with pytest.raises(ArtifactError, match="z_dim: is missing"):
        facts = load_tensors(converted)[1]["stylegan_xl"]
        load_generator(changed(converted, tmp_path, stylegan_xl={k: v for k, v in facts.items() if k != "z_dim"}), classes=[0])
    with pytest.raises(ArtifactError, match="is not a trained generator"):
        load_generator(changed(converted, tmp_path, config=None))
