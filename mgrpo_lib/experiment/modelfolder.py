"""A user's model folder: check that it is complete, and reduce it to a digest for keys. No torch."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

# the keys of tokenizer_config.json that change a prompt; the rest names versions and places
PROMPT_KEYS = ("chat_template", "bos_token", "eos_token", "pad_token")
VOCABULARY = ("tokenizer.json", "*.model", "vocab*")  # a tokenizer has at least one of these
TOKENIZER = (*VOCABULARY, "merges*", "added_tokens.json", "special_tokens_map.json", "*chat_template*")


def content_of(folder: Path) -> str:
    """Return a digest of weights, tokenizer and configuration, without the versions that wrote them.

    Raises:
        ValueError: a part is missing, broken or cut off, or the weights are not in safetensors; with the fix.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} is no model folder: it has no config.json; give the folder that save_pretrained wrote"
        )
    if not (folder / "tokenizer_config.json").is_file() or not _files(folder, VOCABULARY):
        raise ValueError(f"{folder} has no tokenizer; put it there: tokenizer.save_pretrained({str(folder)!r})")
    if (folder / "adapter_config.json").exists():  # transformers would load it on top of the weights
        raise ValueError(f"{folder} holds an adapter; merge it into its base model first: merge_and_unload()")
    config, tokenizer = _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
    indices = [_json(index) for index in folder.glob("*.safetensors.index.json")]
    shards = {name for index in indices for name in index.get("weight_map", {}).values()}
    weights = {path.name for path in folder.glob("*.safetensors")}
    if not weights or any(not name.endswith(".safetensors") for name in shards):
        raise ValueError(
            f"the weights in {folder} are not safetensors, and other formats can hold code; load the model where you "
            "trust it and save it again: model.save_pretrained(folder)"
        )
    for name in sorted(weights | shards):
        try:
            safe_open(folder / name, framework="np")  # reads the header, and compares it with the file's length
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{folder / name} is missing or cut off ({error}); copy the model again") from None
    kept = {key: value for key, value in config.items() if key not in ("transformers_version", "_name_or_path")}
    spoken = {key: str(tokenizer.get(key)) for key in PROMPT_KEYS}
    digest = hashlib.sha256(json.dumps([kept, spoken], sort_keys=True).encode())
    if (folder / "generation_config.json").exists():  # only its end tokens count: evaluation replaces the rest
        ends = _json(folder / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
        if ends != config.get("eos_token_id"):
            digest.update(f"ends:{ends}\n".encode())
    for path in sorted(_files(folder, ("*.safetensors", *TOKENIZER))):
        state = path.stat()
        digest.update(f"{path.name}:{_sha256(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path.parent} is no model folder: {path.name}: {error}; copy the whole model again"
        ) from None


@functools.lru_cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Hash a file once in a process for each of its states."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
