"""A model in a folder of the user's: whether it is whole, and a digest that stands for it in keys. No torch."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

# of tokenizer_config.json what changes a prompt; the rest names versions and places
SPOKEN = ("chat_template", "bos_token", "eos_token", "pad_token")
VOCABULARY = ("tokenizer.json", "*.model", "vocab*")  # a tokenizer has at least one of these
TOKENIZER = (
    *VOCABULARY,
    "merges*",
    "added_tokens.json",
    "special_tokens_map.json",
    "*chat_template*",
)


def content_of(folder: Path) -> str:
    """A digest of weights, tokenizer and configuration, without the versions that wrote them.

    Raises:
        ValueError: a part is missing, broken or cut off, or the weights are not in safetensors; with the mend.
    """
    vocabulary = any(path.is_file() for pattern in VOCABULARY for path in folder.glob(pattern))
    if not vocabulary or not (folder / "tokenizer_config.json").is_file():
        raise ValueError(f"{folder} has no tokenizer; put it there: tokenizer.save_pretrained({str(folder)!r})")
    if (folder / "adapter_config.json").exists():  # transformers would load it on top of the weights
        raise ValueError(f"{folder} holds an adapter; merge it into its base model first: merge_and_unload()")
    config, spoken = _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
    indices = [_json(index) for index in folder.glob("*.safetensors.index.json")]
    shards = {name for index in indices for name in index.get("weight_map", {}).values()}
    weights = {path.name for path in folder.glob("*.safetensors")}
    if not weights or any(not name.endswith(".safetensors") for name in shards):
        raise ValueError(
            f"the weights in {folder} are not safetensors, and other formats can hold code; load the model where you trust it "
            "and save it anew: model.save_pretrained(folder)"
        )
    for name in sorted(weights | shards):
        if not _is_whole(folder / name):
            raise ValueError(f"{folder / name} is missing or was not written to its end; copy the model again")
    kept = {key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")}
    digest = hashlib.sha256(json.dumps([kept, {key: str(spoken.get(key)) for key in SPOKEN}], sort_keys=True).encode())
    if (folder / "generation_config.json").exists():  # of it, what ends an attempt; how to decode is put aside anyway
        ends = _json(folder / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
        if ends != config.get("eos_token_id"):
            digest.update(f"ends:{ends}\n".encode())
    files = [folder / name for name in weights] + [path for pattern in TOKENIZER for path in folder.glob(pattern)]
    for path in sorted(file for file in files if file.is_file()):
        state = path.stat()
        digest.update(f"{path.name}:{_sha256(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path.parent} is no model folder: {path.name}: {error}; copy the whole model again"
        ) from None


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of length, the header, the tensors."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 100_000_000)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, AttributeError, LookupError, TypeError):  # no file, no JSON, or no such header
        return False
    return path.stat().st_size == 8 + length + max(ends, default=0)


@functools.lru_cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Read once in a process for each state of the file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
