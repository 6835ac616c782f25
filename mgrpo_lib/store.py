"""What is on disk, and whether it is still true: keys of runs, atomic writes, manifests, and who may write.

A result is reused only if its key is the same: a hash of every setting that it depends on, of its inputs' keys, and of
the code that made it, or of code that was shown to make the same (`SAME_RESULTS`).
"""

import ast
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

from mgrpo_lib import CUDNN_ATTENTION_LAST, machine, miniature
from mgrpo_lib.benchmarks import SETS, identity
from mgrpo_lib.config import GENERATORS, ROOT, Config, ConfigError, EvalSettings, ModelSettings, TrainSettings

TRAINING_MODULES = (
    "arguments",
    "benchmarks",
    "budget",
    "corrections",
    "data",
    "guards",
    "miniature",
    "models",
    "prompts",
    "quantized",
    "rewards",
    "sums",
    "symbolic",
    "train",
    "trainer",
    "warmup",
)
DATA_MODULES = ("benchmarks", "data", "datacard", "miniature", "sums")
EVALUATION_MODULES = ("evaluate", "controls")  # a change here leaves the trained models valid
REPORT_MODULES = ("evidence", "paper", "records", "report", "stats")
FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # the last two: a file is in the way
CHAIN = "MGRPO_CHAIN"  # environment variable: the process id of the chain that a notebook belongs to
ELSEWHERE = "write elsewhere with OUT=folder (in a notebook: output_root)"
KEPT = "What was finished stays, and the same call goes on from there"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


def code_hash(modules: tuple[str, ...]) -> str:
    """Hash of some modules' code, without comments, docstrings and layout."""
    digest = hashlib.sha256()
    for name in modules:
        tree = ast.parse((ROOT / "mgrpo_lib" / f"{name}.py").read_text(encoding="utf-8"))
        digest.update(f"{name}:{_canonical(tree)}\n".encode())
    return digest.hexdigest()[:12]


def _canonical(node: Any) -> str:
    """A syntax tree as text, without docstrings and without the empty fields that differ between Python versions."""
    if isinstance(node, list):
        return "[" + ",".join(_canonical(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if (
            name == "body"
            and value
            and isinstance(value, list)
            and isinstance(value[0], ast.Expr)
            and isinstance(value[0].value, ast.Constant)
        ):
            value = value[1:]
        if value not in (None, []):
            fields.append(f"{name}={_canonical(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


# A change of the training code that leaves every result as it was, to the byte, keeps the version that made them; CHANGELOG.md
# says what was run again and compared. An entry is of one state of the code: the next change is a new version.
SAME_RESULTS = {"652adf922fd9": "af89edc5ace4"}


# of the code as it was when this process loaded it: a file edited later does not change what runs here
TRAINING_HASH, EVALUATION_CODE = code_hash(TRAINING_MODULES), code_hash(EVALUATION_MODULES)
TRAINING_CODE = SAME_RESULTS.get(TRAINING_HASH, TRAINING_HASH)


def key_of(*parts: Any) -> str:
    """A short hash of plain data; two runs with the same key have the same parameters, inputs and code."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def base_key(cfg: Config) -> str:
    cfg, data = cfg.of_arm("base"), []
    settings = cfg.settings(ModelSettings)
    if cfg.model_content:  # the folder's content stands for it, whatever it is called
        del settings["model"]
    if cfg.model == "miniature" and cfg.base_steps == 0:
        data = [hashlib.sha256((miniature.SHIPPED / "model.safetensors").read_bytes()).hexdigest()]
    elif cfg.sft_steps > 0:
        data = [cfg.train_data, cfg.train_problems, training_contents(cfg)]
    return key_of("base", settings, data, TRAINING_CODE)


def contents(cfg: Config, split: str, names: list[str]) -> dict[str, str]:
    """What stands for the content of each data set that is not generated: wherever it lies, and read or not."""
    found = {name: hashlib.sha256(cfg.files[name].read_bytes()).hexdigest()[:16] for name in names if name in cfg.files}
    return found | {name: identity(name, split, not cfg.data_dir) for name in names if name in SETS}


def training_contents(cfg: Config) -> list[Any]:
    """What the training and validation sets depend on beside the training settings. A real training set is cleaned of
    what it shares with the test sets, so those are part of it.
    """
    if cfg.train_data in GENERATORS:
        return []
    tests = contents(cfg, "test", [*cfg.benchmarks, *(name for name in [cfg.train_data] if name in SETS)])
    return [contents(cfg, "train", [cfg.train_data]), tests, cfg.validation_problems]


def run_key(cfg: Config) -> str:
    """Key of a training run: its settings, its data, its seed, its base model, and the run whose tokens it matches."""
    matched = run_key(cfg.of_arm(cfg.match_tokens_of)) if cfg.match_tokens_of else None
    if cfg.arm == "base":
        return base_key(cfg)
    return key_of("run", cfg.settings(TrainSettings), training_contents(cfg), cfg.seed, base_key(cfg), matched)


def validation_key(cfg: Config) -> str:
    how = (cfg.validation_problems, cfg.eval_batch_size, cfg.eval_phrase, *same_for_all(cfg))
    return key_of("validation", how, cfg.train_data, training_contents(cfg), run_key(cfg), EVALUATION_CODE)


def evaluation_key(cfg: Config) -> str:
    how = (cfg.settings(EvalSettings), *same_for_all(cfg))
    return key_of("evaluation", how, contents(cfg, "test", cfg.benchmarks), run_key(cfg), EVALUATION_CODE)


def same_for_all(cfg: Config) -> tuple:
    """Training settings that the base model's evaluation depends on too."""
    return cfg.max_completion_length, cfg.phrase_role, cfg.load_in_4bit


def group_name(cfg: Config) -> str:
    """What is tested together: ``base``, or the seed."""
    return "base" if cfg.arm == "base" else f"seed{cfg.seed}"


def tested_together(cfg: Config) -> list[Config]:
    """The models that one notebook tests: the base model (arm ``base``), or every arm of a seed."""
    return [cfg] if cfg.arm == "base" else [cfg.of_arm(arm) for arm in cfg.arms]


def controls_key(cfg: Config) -> str:
    return key_of("controls", [(run.arm, evaluation_key(run)) for run in [cfg.of_arm("base"), *tested_together(cfg)]])


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


def finished_run(cfg: Config) -> dict[str, Any] | None:
    """The manifest of this arm's and seed's training run, if it was made with these parameters and its model is at
    hand.
    """
    done = finished(cfg.run_folder / "run.json", run_key(cfg))
    # a hub model or a user's folder is not copied
    borrowed = cfg.arm == "base" and cfg.model != "miniature" and cfg.sft_steps == 0
    return done if done and (borrowed or (cfg.run_folder / "model").exists()) else None


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
        "training_code": TRAINING_CODE,
        "training_code_hash": TRAINING_HASH,  # the same, but where `SAME_RESULTS` says otherwise
        "evaluation_code": EVALUATION_CODE,
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "machine": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "gpu": gpu,
        **driven_by,
    }


def data_key(cfg: Config) -> str:
    return key_of(
        "data",
        cfg.train_data,
        cfg.train_problems,
        cfg.validation_problems,
        cfg.test_problems,
        cfg.test_draw,
        cfg.benchmarks,
        training_contents(cfg),
        contents(cfg, "test", cfg.benchmarks),
        code_hash(DATA_MODULES),
    )


def summary_key(cfg: Config) -> str:
    """Key of the summary: every evaluation that goes into it, and the code that computes its numbers."""
    return key_of("summary", experiment_key(cfg), code_hash(REPORT_MODULES))


def experiment_key(cfg: Config) -> str:
    """Key of all that was trained and evaluated, and under which names, however it is summarised."""
    return key_of("experiment", [(run.run_name, evaluation_key(run)) for run in all_runs(cfg)])


def all_runs(cfg: Config) -> list[Config]:
    """Every model of the experiment: the base model, then each arm with each seed."""
    return [cfg.of_arm("base")] + [cfg.of_arm(arm, seed) for arm in cfg.arms for seed in cfg.seeds]


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


@contextmanager
def only_one(folder: Path):
    """One writer in a results folder: a chain with its notebooks, or one notebook run by hand. The system gives the lock
    back when its owner ends, however it does.

    Args:
        folder: ``results/<profile>`` in the folder of all output.

    Raises:
        ConfigError: somebody else is at work there (the message names the process), or the disk is full or closed to us,
            at first or later on.
    """
    try:
        with _locked(folder):
            yield
    except OSError as error:
        why = no_place(error, folder)
        if why is None:
            raise
        raise ConfigError(why) from error


def no_place(error: OSError, folder: Path) -> str | None:
    """What to do where nothing more can be written, in one line; None if the error is of something else.

    Args:
        folder: as in `only_one`.
    """
    output = folder.parents[1]
    file = Path(error.filename or output)
    if error.errno in FULL:
        free = machine.disk(folder)[0]
        why = f"a file could not be written to its end ({error}); {folder} has {free:.3g} GB free: make room"
    # of the files that are read some may be locked too; their errors name the file themselves
    elif error.errno in CLOSED and (file.is_relative_to(output) or output.is_relative_to(file)):
        why = f"{folder} cannot be written ({error}): mend that"
    else:
        return None
    return f"{why}, or {ELSEWHERE}. {KEPT}"


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
