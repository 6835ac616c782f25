"""Model folders: a digest of what matters, and a sentence for each thing that can be wrong with one."""

import contextlib
import json
import shutil

import pytest

from mgrpo_lib.experiment import fingerprints
from mgrpo_lib.experiment import pipeline as runner
from mgrpo_lib.experiment.modelfolder import content_of
from mgrpo_lib.experiment.settings import ConfigError, load_config


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "own-model")


def settings(folder):
    return load_config("t4", arm="base", model=str(folder))


def test_the_content_stands_for_the_folder_wherever_it_lies(folder, tmp_path):
    cfg = settings(folder)
    assert (cfg.model, cfg.model_location) == ("own-model", str(folder))
    moved = settings(shutil.copytree(folder, tmp_path / "elsewhere" / "another-name"))
    assert moved.model_content == cfg.model_content and fingerprints.base_key(moved) == fingerprints.base_key(cfg)
    assert str(tmp_path) not in json.dumps(cfg.model_dump(), default=str)
    for file in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {"transformers_version": "0", "is_local": False}))
    assert settings(folder).model_content != cfg.model_content, "an unknown key of config.json may matter"
    config = json.loads((folder / "config.json").read_text())
    del config["is_local"]
    (folder / "config.json").write_text(json.dumps(config))
    assert settings(folder).model_content == cfg.model_content, "versions do not"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_other_content_is_another_model(folder, file):
    before, raw = fingerprints.base_key(settings(folder)), (folder / file).read_bytes()
    (folder / file).write_bytes(
        raw[:-4] + b"\x01\x02\x03\x04"
        if file.endswith("safetensors")
        else raw.replace(b": 0", b": 9").replace(b":0", b":9")
    )
    assert fingerprints.base_key(settings(folder)) != before


def test_a_pinned_content_belongs_to_the_profiles_own_model(folder):
    pinned = load_config("smollm2", arm="base")
    assert pinned.model_content and fingerprints.base_key(pinned)
    with pytest.raises(ConfigError, match="needs the folder of .*MODEL=folder"):
        _ = pinned.model_location
    assert load_config("smollm2", arm="base", model="owner/another").model_content is None
    assert load_config("smollm2", arm="base", model=str(folder)).model_content == content_of(folder)
    with pytest.raises(ConfigError, match="asks for feed, and .* holds .*; give the right folder"):
        load_config("t4", model=str(folder), model_content="feed")
    with pytest.raises(ConfigError, match="pin a hub model with model_revision"):
        load_config("t4", model="owner/name", model_content="feed")


def test_another_model_than_the_pinned_one_is_said(folder, capsys):
    runner.check_model(load_config("smollm2", arm="base", model=str(folder)))
    assert "own-model is not the model of profile smollm2" in capsys.readouterr().out
    runner.check_model(settings(folder))
    assert not capsys.readouterr().out


def test_what_ends_an_attempt_is_part_of_the_content(folder):
    before = settings(folder).model_content
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2, 3], "temperature": 0.3}))
    assert settings(folder).model_content != before


def test_an_index_of_pickles_beside_whole_safetensors_does_no_harm(folder):
    before = settings(folder).model_content
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001.bin"}}))
    assert settings(folder).model_content == before


@pytest.mark.parametrize("name", ["/nowhere/x", "~/nowhere/x", "./nowhere", "a/b/c", "a b"])
def test_a_folder_that_is_not_there_is_not_taken_for_a_hub_id(name):
    with pytest.raises(ConfigError, match="is no hub id .* there is no folder .*; a relative path counts from"):
        load_config("t4", model=name)


def truncated(folder):
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pickled_shard(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "pytorch_model-00002.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def missing_shard(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


BROKEN = {
    truncated: "model.safetensors is missing or was not written to its end; copy the model again",
    pickled: "are not safetensors, and other formats can hold code",
    pickled_shard: "are not safetensors, and other formats can hold code",
    missing_shard: "model-00002.safetensors is missing",
    lambda folder: (folder / "tokenizer_config.json").unlink(): "has no tokenizer; put it there",
    lambda folder: (folder / "tokenizer.json").unlink(): r"has no tokenizer; put .*save_pretrained\('/.*/own-model'\)",
    lambda folder: (folder / "adapter_config.json").write_text("{}"): "holds an adapter; merge it",
    lambda folder: (folder / "config.json").unlink(): "is no model folder: config.json.* copy the whole model again",
    lambda folder: (folder / "config.json").write_text("{"): "is no model folder: config.json",
    lambda folder: (folder / "model.safetensors").write_bytes(b""): "was not written to its end",
    lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 99): "was not written to its end",
    lambda folder: (folder / "model.safetensors").write_bytes(b"\2" + b"\0" * 7 + b"[]"): "was not written to its end",
    lambda folder: (folder / "model.safetensors").write_bytes(
        b"\7" + b"\0" * 7 + b'{"a":1}'
    ): "was not written to its end",
}


@pytest.mark.parametrize(("breakage", "message"), BROKEN.items())
def test_what_is_wrong_with_a_folder_is_said(folder, breakage, message):
    breakage(folder)
    with pytest.raises(ConfigError, match=message):
        settings(folder)


def test_no_code_of_a_folder_is_run(folder, tmp_path, monkeypatch):
    """A configuration that asks for the folder's own code: refused, not asked about (as transformers does on a terminal)."""
    from mgrpo_lib.experiment import models

    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    cfg, trusted = settings(folder), []
    for kind in ("AutoModelForCausalLM", "AutoTokenizer"):
        original = getattr(models, kind).from_pretrained

        def spy(*args, original=original, **kwargs):
            trusted.append(kwargs["trust_remote_code"])
            return original(*args, **kwargs)

        monkeypatch.setattr(f"mgrpo_lib.experiment.models.{kind}.from_pretrained", spy)
    with pytest.raises(ValueError, match="trust_remote_code|remote code|custom code"):
        models.load_base(cfg, str(folder))
    with contextlib.suppress(ValueError):
        models.load_tokenizer(cfg, str(folder))
    assert trusted == [False, False] and not (tmp_path / "ran").exists()
