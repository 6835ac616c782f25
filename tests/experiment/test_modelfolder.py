"""Model folders: a digest of what matters, and a clear refusal for each thing that can be wrong with one."""

import json
import os
import shutil

import pytest

from mgrpo_lib.experiment import keys
from mgrpo_lib.experiment import pipeline as runner
from mgrpo_lib.experiment.modelfolder import content_of
from mgrpo_lib.experiment.settings import ConfigError, load_config
from tests.method import chat
from tools.smollm2 import save


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "own-model")


def settings(folder):
    return load_config("t4", arm="base", model=str(folder))


def edit(file, **changes):
    """Change keys of a JSON file."""
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


def test_the_digest_of_a_folder_is_the_one_in_keys(tmp_path):
    """Bit for bit: committed runs are found by it."""
    edit(tmp_path / "config.json", hidden_size=1, eos_token_id=2, transformers_version="9")
    edit(tmp_path / "tokenizer_config.json", eos_token="<e>", chat_template="{{ m }}", model_max_length=5)
    edit(tmp_path / "generation_config.json", eos_token_id=[1, 2])
    (tmp_path / "model.safetensors").write_bytes(b"\2" + b"\0" * 7 + b"{}")
    for name in ("tokenizer.json", "vocab.txt", "merges.txt", "chat_template.jinja"):
        (tmp_path / name).write_text(name)
    assert content_of(tmp_path) == "7d9e4df0fcb30001"


def test_the_tools_keep_every_entry_of_a_configuration_but_those_that_they_name(tmp_path, capsys):
    """The content of a made folder hangs on each: one that is lost makes it another model to profiles."""
    tokenizer = chat.make_tokenizer()
    model = chat.make_model(tokenizer)
    model.config._model_name_or_path = "its name in the file"
    save(model, tokenizer, tmp_path / "kept", "another", hidden_act="gelu")
    save(model, tokenizer, tmp_path / "left", "another", _model_name_or_path=None)
    kept, left = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("kept", "left"))
    assert kept.pop("_model_name_or_path") == "its name in the file" and "_model_name_or_path" not in left
    assert kept == left | {"hidden_act": "gelu"} and left["hidden_size"] == 64
    assert capsys.readouterr().out.count("content another") == 2


def test_the_digest_does_not_depend_on_place_and_versions(folder, tmp_path):
    cfg = settings(folder)
    assert (cfg.model, cfg.model_location) == ("own-model", str(folder))
    assert str(tmp_path) not in json.dumps(cfg.model_dump(), default=str)
    moved = settings(shutil.copytree(folder, tmp_path / "elsewhere" / "another-name"))
    assert moved.model_content == cfg.model_content and keys.base_key(moved) == keys.base_key(cfg)
    for file in ("config.json", "tokenizer_config.json"):
        edit(folder / file, transformers_version="0")
    assert settings(folder).model_content == cfg.model_content
    edit(folder / "config.json", is_local=False)
    assert settings(folder).model_content != cfg.model_content, "an unknown key of config.json may matter"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"])
def test_other_content_is_another_model(folder, file):
    before = keys.base_key(settings(folder))
    if file == "generation_config.json":
        edit(folder / file, eos_token_id=[1, 2, 3])
    else:
        raw = (folder / file).read_bytes()
        changed = raw.replace(b": 0", b": 9").replace(b":0", b":9")
        (folder / file).write_bytes(raw[:-4] + b"\1\2\3\4" if file.endswith("safetensors") else changed)
    assert keys.base_key(settings(folder)) != before


def test_decoding_rules_and_an_index_of_pickles_do_not_matter(folder):
    before = settings(folder).model_content
    edit(folder / "generation_config.json", temperature=0.3)
    edit(folder / "pytorch_model.bin.index.json", weight_map={"a": "pytorch_model-00001.bin"})
    assert settings(folder).model_content == before


def test_a_pinned_content_belongs_to_the_profiles_own_model(folder):
    pinned = load_config("smollm2", arm="base")
    assert pinned.model_content and keys.base_key(pinned)
    with pytest.raises(ConfigError, match="MODEL=folder"):
        _ = pinned.model_location
    assert load_config("smollm2", arm="base", model="owner/another").model_content is None
    assert load_config("smollm2", arm="base", model=str(folder)).model_content == content_of(folder)
    with pytest.raises(ConfigError, match=f"model_content.*feed.*{content_of(folder)}"):
        load_config("t4", model=str(folder), model_content="feed")
    with pytest.raises(ConfigError, match="model_revision"):
        load_config("t4", model="owner/name", model_content="feed")


def test_another_model_than_the_pinned_one_is_noted(folder, capsys):
    runner.check_model(load_config("smollm2", arm="base", model=str(folder)))
    assert "own-model" in capsys.readouterr().out
    runner.check_model(settings(folder))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["/nowhere/x", "~/nowhere/x", "./nowhere", "a/b/c", "a b"])
def test_a_missing_folder_is_not_taken_for_a_hub_id(name):
    with pytest.raises(ConfigError, match="no hub id"):
        load_config("t4", model=name)


def weights(raw):
    return lambda folder: (folder / "model.safetensors").write_bytes(raw)


def shard(name):
    table = {"a": "model.safetensors", "b": name}
    return lambda folder: edit(folder / "model.safetensors.index.json", weight_map=table)


def without(name):
    return lambda folder: (folder / name).rename(folder / "other.bin")


BROKEN = [
    (lambda folder: os.truncate(folder / "model.safetensors", 9999), "model.safetensors is .*cut off.*copy"),
    (weights(b""), "model.safetensors is .*cut off"),
    (weights(b"\xff" * 99), "model.safetensors is .*cut off"),
    (weights(b"\2" + b"\0" * 7 + b"[]"), "model.safetensors is .*cut off"),
    (weights(b"\7" + b"\0" * 7 + b'{"a":1}'), "model.safetensors is .*cut off"),
    (shard("model-00002.safetensors"), "model-00002.safetensors is missing"),
    (shard("pytorch_model-00002.bin"), "not safetensors.*save_pretrained"),
    (without("model.safetensors"), "not safetensors.*save_pretrained"),
    (without("tokenizer_config.json"), "no tokenizer"),
    (without("tokenizer.json"), r"no tokenizer.*tokenizer.save_pretrained\('/.*/own-model'\)"),
    (without("config.json"), "config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    (lambda folder: edit(folder / "adapter_config.json"), "merge_and_unload"),
]


@pytest.mark.parametrize(("breakage", "message"), BROKEN)
def test_what_is_wrong_with_a_folder_is_said(folder, breakage, message):
    breakage(folder)
    with pytest.raises(ConfigError, match=message):
        settings(folder)
