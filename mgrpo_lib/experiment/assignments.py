"""Settings as a command line writes them: ``name=value``, and seeds such as ``0,1,2``."""

import contextlib
import re
from typing import Any

import yaml

from mgrpo_lib.experiment.settings import Config, ConfigError

TEXTS = {name for name, field in Config.model_fields.items() if field.annotation in (str, str | None)}


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs; a value is YAML, and ``1e-4`` is a number (YAML alone reads a text).

    Raises:
        ConfigError: no ``=``, broken YAML, or a name given twice.
    """
    values: dict[str, Any] = {}
    for pair in _whole(pairs):
        name, separator, text = pair.partition("=")
        if not separator or not name.isidentifier():
            raise ConfigError(f"cannot read {pair!r}; write name=value, without blanks around '='")
        if name not in TEXTS and re.search(r",\s*\w+=", text):
            raise ConfigError(f"cannot read {pair!r}; separate settings by blanks, not commas")
        if name in values:
            raise ConfigError(f"{name} is given twice, as {values[name]!r} and as {text}; leave one out")
        try:
            values[name] = text if name in TEXTS and text != "null" else yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # the second: a date that does not exist
            raise ConfigError(
                f"cannot read {pair!r}; write lists as [a, b], and texts with signs or a backslash 'in single quotes'"
            ) from None
        if isinstance(values[name], str) and name not in TEXTS:
            with contextlib.suppress(ValueError):
                values[name] = float(values[name])
    return values


def _whole(words: list[str]) -> list[str]:
    """Join what a shell cut at blanks inside brackets, such as ``{a: 1}``."""
    pairs: list[str] = []
    for word in words:
        if pairs and sum(map(pairs[-1].count, "[{")) > sum(map(pairs[-1].count, "]}")):
            pairs[-1] += f" {word}"
        else:
            pairs.append(word)
    return pairs


def parse_seeds(text: str) -> list[int]:
    """Read ``0,1,2`` or ``0 1 2``."""
    parts = text.replace(",", " ").split()
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"cannot read the seeds {text!r}; write whole numbers, such as 0,1,2")
    return [int(part) for part in parts]
