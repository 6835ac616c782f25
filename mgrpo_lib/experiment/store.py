"""Result files: atomic writes, manifests, records with their digests, and who may write. No torch."""

import errno
import fcntl
import gzip
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mgrpo_lib import CUDNN_ATTENTION_LAST
from mgrpo_lib.experiment import machine
from mgrpo_lib.experiment.settings import ConfigError
from mgrpo_lib.experiment.versions import EVALUATION_VERSION, TRAINING_VERSION, code_hash

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # the last two: a file is in the way
CHAIN = "MGRPO_CHAIN"  # environment variable: the process id of the chain that a notebook belongs to
ELSEWHERE = "write elsewhere with OUT=folder (in a notebook: output_root)"
KEPT = "What was finished stays, and the same call goes on from there"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


def finished(manifest: Path, key: str) -> dict[str, Any] | None:
    """The manifest of a finished step if it was made with this key; None if the step must (again) be done."""
    if not manifest.exists():
        return None
    try:
        content = read_json(manifest)
    except ValueError:  # a machine that lost its power can leave a renamed file empty
        print(f"{manifest} is cut off or damaged; what it stood for is made again", flush=True)
        return None
    return content if content.get("key") == key else None


# of the code as it was when this process loaded it: a file edited later does not change what runs here
_code = {kind: code_hash(kind) for kind in ("training", "evaluation")}


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES}


def environment() -> dict[str, Any]:
    """Versions and hardware, as every artefact names them. GPUs are named only where torch is loaded already."""
    gpu, driven_by = None, {}
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        gpu, last = torch.cuda.get_device_name(0), os.environ.get(CUDNN_ATTENTION_LAST) == "1"
        driven_by = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "cudnn_attention_last": last}
    return {
        "training_version": TRAINING_VERSION,
        "evaluation_version": EVALUATION_VERSION,
        "training_code": _code["training"],
        "evaluation_code": _code["evaluation"],
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "machine": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "gpu": gpu,
        **driven_by,
    }


def write_text(path: Path, text: str) -> Path:
    """Writes a file whole or not at all: under a temporary name first, then renamed. Compressed if its name says so,
    and then to the same bytes whenever it is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, content = path.with_name(f".{path.name}.partial"), text.encode()
    try:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        temporary.replace(path)
    except OSError:  # on a full disk every byte counts
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path, value: Any) -> Path:
    return write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    return write_text(path, _lines(rows))


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> list[dict]:
    return _rows(_text(path))


def _rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.split("\n") if line]


def _text(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def write_records(manifest: Path, key: str, rows: list[dict], **facts: Any) -> dict[str, Any]:
    """Writes records beside their manifest (``<name>.jsonl.gz``), then the manifest, which holds their digest."""
    write_jsonl(manifest.with_suffix(".jsonl.gz"), rows)
    content = {"key": key, "digest": _digest(_lines(rows)), "rows": len(rows), **facts, "environment": environment()}
    write_json(manifest, content)
    return content


def read_records(manifest: Path, key: str) -> list[dict]:
    """The records of a manifest.

    Raises:
        FileNotFoundError: they were not made with these parameters.
        ValueError: they are not those that the manifest speaks of.
    """
    done = finished(manifest, key)
    if done is None:
        raise FileNotFoundError(
            f"no records made with these parameters in {manifest.with_suffix('.jsonl.gz')}; run notebook 05_benchmarks"
        )
    text = _text(manifest.with_suffix(".jsonl.gz"))
    if _digest(text) != done["digest"]:
        raise ValueError(
            f"the records in {manifest.with_suffix('.jsonl.gz')} are not those of their manifest; delete {manifest.name} "
            "and run notebook 05_benchmarks again"
        )
    return _rows(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def replace_folder(partial: Path, final: Path) -> Path:
    """Moves a finished folder to its place, over an older one."""
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return final


def check_place(folder: Path) -> None:
    """Refuse a folder of results, made or not yet, in which nothing can be written.

    Raises:
        ConfigError: says why, and the fix.
    """
    free, why = machine.disk(folder)
    if why:
        raise ConfigError(
            f"nothing can be written in {folder}: {why} ({free:.3g} GB free); {ELSEWHERE}, make room, or make it writable"
        )


@contextmanager
def only_one(folder: Path):
    """One writer in a results folder: a chain with its notebooks, or one notebook run by hand. The system gives the lock
    back when its owner ends, however it does.

    Args:
        folder: ``results/<profile>`` in the folder of all output.

    Raises:
        ConfigError: another process works there (the message names the process), or the disk is full or closed to us,
            at first or later on.
    """
    check_place(folder)
    try:
        with _locked(folder):
            yield
    except OSError as error:
        why = no_place(error, folder)
        if why is None:
            raise
        raise ConfigError(why) from error


def make_room(folder: Path, less: str = "") -> str:
    """Say what is free where a folder is, and the ways out; `less`: a way to need less, after a comma."""
    return f"{folder} has {machine.disk(folder)[0]:.3g} GB free: make room{less}, or {ELSEWHERE}"


def no_place(error: OSError, folder: Path) -> str | None:
    """What to do where nothing more can be written, in one line; None if the error is of something else.

    Args:
        folder: as in `only_one`.
    """
    output = folder.parents[1]
    file = Path(error.filename or output)
    if error.errno in FULL:
        why = f"a file could not be written to its end ({error}); {make_room(folder)}"
    # of the files that are read some may be locked too; their errors name the file themselves
    elif error.errno in CLOSED and (file.is_relative_to(output) or output.is_relative_to(file)):
        why = f"{folder} cannot be written ({error}): make it writable, or {ELSEWHERE}"
    else:
        return None
    return f"{why}. {KEPT}"


@contextmanager
def _locked(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b", buffering=0) as file:  # a buffer would be written once more, when it is closed
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().decode().strip()
            if not owner.startswith(f"process {os.environ.get(CHAIN)} on {platform.node()} "):
                raise ConfigError(
                    f"{folder} is in use by {owner or 'another run'}; wait until it ends, stop it, or {ELSEWHERE}"
                ) from None
            yield  # in the chain's name
            return
        except OSError as error:  # some network folders know no locks
            print(f"note: {folder} cannot be locked ({error}); start no second run there", flush=True)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        yield
