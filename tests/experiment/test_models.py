"""Loading: precision, 4-bit bases with adapters, and no code that comes with a model."""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mgrpo_lib.experiment import models
from mgrpo_lib.experiment.settings import ConfigError, load_config
from mgrpo_lib.experiment.train import train


@pytest.mark.parametrize(
    ("cpu", "ampere", "wanted", "dtype", "why"),
    [
        (True, False, "auto", torch.float32, "CPU"),
        (True, False, "bfloat16", torch.bfloat16, "dtype"),
        (False, True, "auto", torch.bfloat16, "GPU has it"),
        (False, True, "float32", torch.float32, "dtype"),
        (False, False, "auto", torch.float16, "older than Ampere"),
        (False, False, "bfloat16", None, "dtype=auto"),
    ],
)
def test_precision_is_chosen_by_capability_with_a_reason(cpu, ampere, wanted, dtype, why, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: ampere or including_emulation)
    if dtype is None:
        with pytest.raises(ConfigError, match=why):
            models.compute_dtype(cpu, wanted)
        return
    chosen, reason = models.compute_dtype(cpu, wanted)
    assert chosen == dtype and why in reason


def test_an_adapter_trained_on_4_bits_reloads(tmp_path):
    small = {"base_steps": 5, "max_steps": 2, "prompts_per_step": 2, "micro_batch_size": 8}
    cfg = load_config("smoke", arm="mgrpo_nf4", output_root=str(tmp_path), **small)
    train(cfg)
    weights = cfg.run_folder / "model" / "adapter_model.safetensors"
    torch.manual_seed(0)  # two steps may find no reward: make sure that the adapter does something
    save_file({name: value + 0.1 * torch.randn_like(value) for name, value in load_file(weights).items()}, weights)
    policy, tokenizer = models.load_policy(cfg)
    assert any(p.dtype == torch.uint8 for p in policy.parameters())
    ids = torch.tensor([tokenizer("<q>7 a+8 b*3<a>", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        own = policy(ids).logits
        with policy.disable_adapter():
            assert not torch.allclose(own, policy(ids).logits, atol=1e-3), "the adapter must matter"


def test_a_model_that_cannot_be_had_is_refused():
    with pytest.raises(ConfigError, match="'owner/name'.* set model .*MODEL="):  # tests run offline
        models.load_base(load_config("t4", arm="base", model="owner/name"), "owner/name")


def test_no_code_of_a_folder_is_run(model_folder, tmp_path, monkeypatch):
    """A configuration that asks for the folder's own code: refused, not asked about (as transformers does on a terminal)."""
    folder = shutil.copytree(model_folder, tmp_path / "own-model")
    autos = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "own", "auto_map": autos}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    cfg, trusted = load_config("t4", arm="base", model=str(folder)), []
    for kind in (models.AutoModelForCausalLM, models.AutoTokenizer):

        def spy(*args, original=kind.from_pretrained, **kwargs):
            trusted.append(kwargs["trust_remote_code"])
            return original(*args, **kwargs)

        monkeypatch.setattr(kind, "from_pretrained", spy)
    with pytest.raises(ValueError, match="trust_remote_code|remote code|custom code"):
        models.load_base(cfg, str(folder))
    with contextlib.suppress(ValueError):
        models.load_tokenizer(cfg, str(folder))
    assert trusted == [False, False] and not (tmp_path / "ran").exists()
