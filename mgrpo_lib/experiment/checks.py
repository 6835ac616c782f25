"""What a profile's settings are refused for before any work is done, each with its fix. This module also says how files and
folders of the user's are named in results. The training settings refuse by themselves (`mgrpo_lib.method.settings`).
"""

import importlib.util
import os
import re
from pathlib import Path

from mgrpo_lib.experiment.modelfolder import content_of
from mgrpo_lib.experiment.settings import (
    GENERATED,
    GENERATORS,
    ROOT,
    Config,
    ConfigError,
    from_repository,
)
from mgrpo_lib.method.prompts import PHRASES, text_problem
from mgrpo_lib.method.settings import MGRPOSettings
from mgrpo_lib.tasks import miniature
from mgrpo_lib.tasks.benchmarks import SETS, TRAINING_SETS
from mgrpo_lib.tasks.files import FILE_KINDS, check_file
from mgrpo_lib.tasks.names import nearest

COLUMNS = {
    "arm",
    "attempt",
    "benchmark",
    "choice",
    "condition",
    "hypothesis",
    "verdict",
}  # of tables that have one for each set
DRIVE = Path("/content/drive")  # where Colab mounts Google Drive


def checked(cfg: Config, own_model: str | None, wanted_content: str | None) -> Config:
    """The configuration with files and model folder named as in results, or a refusal.

    Args:
        own_model: the model that the profile itself names.
        wanted_content: the `model_content` that the user asks for; what a profile pins is the content of its own model.

    Raises:
        ConfigError: naming the setting and the fix.
    """
    cfg = _name_model(_name_files(cfg), own_model, wanted_content)
    try:
        MGRPOSettings(**{name: getattr(cfg, name) for name in MGRPOSettings.__dataclass_fields__})
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for problem in (*_step(cfg), *_experiment(cfg), *_model(cfg), *_data(cfg), *_output(cfg)):
        raise ConfigError(problem)
    return cfg


def _name_files(cfg: Config) -> Config:
    """Name the user's files by their stems, as results do: where a file lies on a machine is no part of them."""
    names, files = {}, {}
    for given in [cfg.train_data, *cfg.benchmarks]:
        path, setting = from_repository(given), "benchmarks" if files or names else "train_data"
        own = path.suffix.lower() in FILE_KINDS
        names[given] = path.stem if own else given
        if own or (given not in {*SETS, *GENERATORS, *GENERATED} and (path.exists() or path.suffix or os.sep in given)):
            _check_file(setting, given, path)
        if not own:
            continue
        if same := [name for name, other in files.items() if path.samefile(other)]:
            if same[0] == names[cfg.train_data]:
                raise ConfigError(
                    f"train_data and benchmarks name the same file, {given!r}; give another one as test set"
                )
            raise ConfigError(f"benchmarks names the file {given!r} twice; give each once")
        if path.stem in {*SETS, *GENERATORS, *GENERATED, "validation", *files, *COLUMNS}:
            raise ConfigError(
                f"{given!r} would be called {path.stem!r} in the results, as another set or column is; rename the file"
            )
        if not path.stem.isprintable():
            raise ConfigError(f"{setting}: the name of {given!r} holds signs that are not seen; rename the file")
        files[path.stem] = path
    named = {"train_data": names[cfg.train_data], "benchmarks": [names[given] for given in cfg.benchmarks]}
    cfg = cfg.model_copy(update=named)
    cfg._files = files
    return cfg


def _check_file(setting: str, given: str, path: Path) -> None:
    try:
        check_file(path)
    except ValueError as error:
        where = "" if path.exists() else f"; a relative path counts from {ROOT}"
        raise ConfigError(f"{setting} {given!r}: {error}{where}") from None


def _name_model(cfg: Config, own_model: str | None, wanted: str | None) -> Config:
    """Name a model folder by its last part and its content, as results do: where it lies is no part of them."""
    folder = from_repository(cfg.model)
    if cfg.is_miniature or (cfg.model == own_model and not folder.is_dir()):
        return cfg
    if not folder.is_dir():
        if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", cfg.model):
            raise ConfigError(
                f"model {cfg.model!r} is no hub id (owner/name), and there is no folder {folder}; a relative path counts from {ROOT}"
            )
        if wanted:
            raise ConfigError("model_content is for a model in a folder; pin a hub model with model_revision")
        return cfg.model_copy(update={"model_content": None})
    if folder.name == "miniature":
        raise ConfigError(f"model {folder} would be called 'miniature' in the results, as ours is; rename the folder")
    try:
        content = content_of(folder)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if wanted not in (None, content):
        raise ConfigError(f"model_content is {wanted!r}, and {folder} holds {content}; give the right folder")
    cfg = cfg.model_copy(update={"model": folder.name, "model_content": content})
    cfg._model_folder = folder
    return cfg


def _step(cfg: Config):
    """A step that cannot be made."""
    rows = cfg.prompts_per_step * cfg.num_generations
    if rows % cfg.micro_batch_size:
        fitting = max(d for d in range(1, min(rows, cfg.micro_batch_size) + 1) if rows % d == 0)
        yield (
            f"micro_batch_size {cfg.micro_batch_size} does not divide prompts_per_step * num_generations = {rows}; use {fitting}"
        )
    if 0 < cfg.train_problems < cfg.prompts_per_step:
        yield f"train_problems {cfg.train_problems} is below prompts_per_step; use {cfg.prompts_per_step} or more"
    if cfg.learning_rate <= 0:
        yield f"learning_rate {cfg.learning_rate:g} trains nothing; give a positive number"
    if cfg.load_in_4bit and cfg.lora_rank == 0:
        yield "load_in_4bit freezes the weights, so something else must be trained; set lora_rank, for example to 16"
    if cfg.match_tokens_of and not cfg.lr_scheduler_type.startswith("constant"):
        yield "lr_scheduler_type must be constant where match_tokens_of ends a training: its number of steps is not known before"
    if cfg.phrase_role == "user" and cfg.is_miniature:
        yield "phrase_role 'user' needs a chat model, and the miniature has no turns; use assistant"


def _experiment(cfg: Config):
    """Arms, seeds and phrases that contradict each other."""
    other = cfg.match_tokens_of
    if other is not None and other not in cfg.arms:
        yield f"match_tokens_of names the unknown arm {other!r}; {nearest(other, list(cfg.arms))}"
    elif other is not None and "match_tokens_of" in cfg.arms[other]:
        yield f"match_tokens_of names {other!r}, which itself matches another arm; name one that does not"
    for name in cfg.arms:
        if not re.fullmatch(r"\w[\w.+-]*", name) or name == "base":
            yield f"arms: {name!r} cannot be the name of a folder of results; use letters, digits and _, and not 'base'"
    for name in cfg.control_arms:
        if name not in {"base", *cfg.arms}:
            yield f"control_arms names the unknown arm {name!r}; {nearest(name, ['base', *cfg.arms])}"
    for name in ("seeds", "benchmarks"):
        if len(set(getattr(cfg, name))) < len(getattr(cfg, name)):
            yield f"{name} {getattr(cfg, name)} repeats an entry; give each once"
    if isinstance(cfg.eval_phrase, int) and not 1 <= cfg.eval_phrase <= len(PHRASES):
        yield f"eval_phrase {cfg.eval_phrase}: the guiding phrases are 1 to {len(PHRASES)}; or give a text"
    if isinstance(cfg.eval_phrase, str) and not cfg.eval_phrase.strip():
        yield "eval_phrase is empty; write a text, such as 'Is that so?'"
    for name, text in (("eval_phrase", cfg.eval_phrase), ("system_prompt", cfg.system_prompt)):
        if found := text_problem(name, str(text or "")):
            yield "; ".join(found)
    for tracker in [cfg.report_to] if isinstance(cfg.report_to, str) else cfg.report_to:
        if tracker != "none" and importlib.util.find_spec(tracker) is None:
            yield f"report_to {tracker!r} needs a package that is not installed: pip install {tracker}, or leave it out"


def _model(cfg: Config):
    """A model that cannot be had, and settings that do not go with it."""
    if cfg.is_miniature:
        for name in ("model_revision", "model_content", "system_prompt", "chat_template_kwargs", "sft_steps"):
            if getattr(cfg, name):
                yield f"{name} is for language models, and the model is the miniature; leave it out"
        for phrase in [*cfg.phrases, cfg.eval_phrase]:
            if isinstance(phrase, str) and phrase not in PHRASES:
                yield f"the miniature does not know the phrase {phrase!r}; take some of its own seven, or set model"
        if cfg.dtype == "bfloat16":
            yield "dtype bfloat16: the miniature computes in float32 on the CPU; leave dtype out, or set model"
        return
    for name in ("base_continued", "probe_steps"):
        if getattr(cfg, name):
            yield f"{name} is for the miniature; leave it out, or leave model out"
    if cfg.model_revision and cfg.model_content:
        yield "model_revision is for a hub model, and the model is a folder; leave it out"
    ranks = [run.get("lora_rank", cfg.lora_rank) for run in cfg.arms.values()]
    if cfg.model_revision and cfg.beta > 0 and 0 in ranks:
        yield (
            "model_revision does not reach TRL's reference model where all weights are trained; set lora_rank, beta=0, or model "
            "to a folder with that revision"
        )
    if cfg.sft_steps and cfg.train_data in TRAINING_SETS:
        yield (
            f"sft_steps {cfg.sft_steps} warms up on worked solutions, which {cfg.train_data} has not here; set sft_steps=0, or "
            "train_data to sums or to a file of your own with a column 'solution'"
        )


def _data(cfg: Config):
    """Data sets that do not exist, or that the model cannot read."""
    generated = [name for module in GENERATORS.values() for name in module.BENCHMARKS]
    known = {"train_data": [*GENERATORS, *TRAINING_SETS], "benchmarks": [*generated, *SETS]}
    for setting, name in [("train_data", cfg.train_data), *[("benchmarks", name) for name in cfg.benchmarks]]:
        if name in cfg.files:
            continue
        if name not in known[setting]:
            kinds = ", ".join(FILE_KINDS)
            yield f"{setting}: unknown set {name!r}; {nearest(name, known[setting])} Or give the path of a {kinds} file"
        elif cfg.is_miniature and name not in {"miniature", *miniature.BENCHMARKS}:
            yield f"{setting}: {name!r} is text, and the model 'miniature' reads arithmetic alone; set model"
        elif not cfg.is_miniature and name == "miniature":
            yield f"{setting}: {name!r} is in the miniature's own signs; for {cfg.model} take profile own, or set train_data and benchmarks"
    if cfg.train_problems == 0 and cfg.train_data in GENERATORS:
        yield f"train_problems 0 means all, and {cfg.train_data} has no end; give a number"
    for name in ("test_problems", "probe_problems"):
        if cfg.arms and getattr(cfg, name) == 1:
            yield f"{name} is 1, and arms are compared on several problems; use 2 or more"
    if cfg.test_problems == 0 and not set(cfg.benchmarks).isdisjoint(GENERATED):
        yield "test_problems 0 means all, and generated sets have no end; give a number"


def _output(cfg: Config):
    """A Drive that is not mounted would be an ordinary folder of Colab's, gone with the session."""
    if cfg.output.is_relative_to(DRIVE) and not (DRIVE / "MyDrive").is_dir():
        yield (
            f"output_root {cfg.output_root!r} is on Google Drive, which is not mounted; run this first: "
            f"from google.colab import drive; drive.mount('{DRIVE}')"
        )
