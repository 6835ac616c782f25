"""The files of profiles: those of `profiles/`, known by their names, and a user's own, known by their paths."""

import functools
import os
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from mgrpo_lib.experiment.versions import ROOT
from mgrpo_lib.tasks.names import nearest

KINDS = (".yaml", ".yml")


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the fix."""


def profile_names() -> list[str]:
    """Return the names of the files in ``profiles/``."""
    return sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def from_repository(path: str) -> Path:
    """A path of the user's; a relative one counts from the repository, for notebooks and commands alike."""
    return (ROOT / Path(path).expanduser()).resolve()


def find(profile: str) -> tuple[str, Path]:
    """Return the name of a profile, which its results bear, and its file.

    Args:
        profile: a name in ``profiles/``, or the path of a YAML file, whose stem is its name.

    Raises:
        ConfigError: no such name or file, or a file that cannot be told from another profile by its name.
    """
    shipped = profile_names()
    if profile in shipped:
        return profile, ROOT / "profiles" / f"{profile}.yaml"
    path = from_repository(profile)
    if path.suffix.lower() not in KINDS:
        if os.sep in profile:
            raise ConfigError(
                f"profile {profile!r} is no {KINDS[0]} file; give the path of one, or a name in profiles/"
            )
        own = "; a file of your own ends in .yaml, such as my.yaml"
        raise ConfigError(f"unknown profile {profile!r}; {nearest(profile, shipped)}{own}")
    if path == ROOT / "profiles" / path.name and path.stem in shipped:
        return path.stem, path
    if not path.is_file():
        raise ConfigError(f"profile {profile!r}: there is no file {path}; a relative path counts from {ROOT}")
    if path.stem in {*shipped, "auto"}:
        raise ConfigError(f"profile {profile!r} would be called {path.stem!r}, as one of ours is; rename the file")
    if not re.fullmatch(r"\w[\w.+-]*", path.stem):
        raise ConfigError(
            f"profile {profile!r} would name a folder of results {path.stem!r}; rename the file: letters, digits and _"
        )
    return path.stem, path


def content(path: Path) -> dict[str, Any]:
    """Return the settings in a profile's file, over those of the profile in ``profiles/`` that it names with ``extends``.

    Raises:
        ConfigError: not readable as names and values, or an unknown profile after ``extends``.
    """
    where = short(path)
    try:
        found = deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError:
        raise ConfigError(f"{where} is no text in UTF-8; save it as one") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{where}: {problem}; write texts with a backslash in 'single quotes'") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{where} holds no settings; write one a line, such as max_steps: 50")
    if "extends" not in found:
        return found
    other = found.pop("extends")
    if other not in profile_names():
        raise ConfigError(f"{where} extends the unknown profile {other!r}; {nearest(str(other), profile_names())}")
    below = content(ROOT / "profiles" / f"{other}.yaml")
    if "model" in found:  # what pins the other profile's model does not pin this one
        below = {name: value for name, value in below.items() if name not in ("model_content", "model_revision")}
    return {**below, **found}


def short(path: Path) -> str:
    """A path as a message names it: within the repository if it lies there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@functools.cache
def _parsed(text: str) -> Any:
    return yaml.safe_load(text)
