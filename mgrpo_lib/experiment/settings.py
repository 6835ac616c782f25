"""A profile, resolved: every setting of one run, strict and typed.

A setting is looked up in this order: what the user passed, the arm's line in the profile, the profile, the default. The
training settings are those of `mgrpo_lib.method.settings`, declared and checked there; here stands what the experiment adds.
An unknown name or a wrong type stops the run before any work, with the nearest valid name.
"""

import contextlib
from dataclasses import MISSING, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model, field_validator

from mgrpo_lib.experiment import profiles
from mgrpo_lib.experiment.profiles import ConfigError as ConfigError
from mgrpo_lib.experiment.profiles import from_repository as from_repository
from mgrpo_lib.experiment.profiles import profile_names as profile_names
from mgrpo_lib.experiment.versions import ROOT as ROOT
from mgrpo_lib.method.prompts import PHRASES, Prompt, chat_prompt
from mgrpo_lib.method.settings import MGRPOSettings
from mgrpo_lib.tasks import miniature, sums
from mgrpo_lib.tasks.names import nearest

OUT = "out"  # where results go unless asked otherwise: in the repository, and ignored by git
GENERATORS = {"miniature": miniature, "sums": sums}  # training sets that are made and not read, each with its test sets
GENERATED = {name: module for module in GENERATORS.values() for name in module.SETS}


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _declared(declaration: type) -> dict[str, Any]:
    """The fields of a dataclass of settings for pydantic: type, default and help."""
    found = {}
    for one in fields(declaration):
        default = {"default": one.default} if one.default is not MISSING else {"default_factory": one.default_factory}
        found[one.name] = (one.type, Field(**default, description=one.metadata["help"]))
    return found


class ModelSettings(_Settings):
    """What the base model depends on."""

    model: str = Field("miniature", description="'miniature', a hub id, or a folder with a model and its tokenizer")
    model_revision: str | None = Field(None, description="commit, tag or branch of a hub model; None: its newest")
    model_content: str | None = Field(
        None, description="digest of a folder's model and tokenizer; computed, or pinned beside `model` in a profile"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="precision of an LLM; auto: the GPU's best, on the CPU float32 (bfloat16 is faster with AMX)",
    )
    system_prompt: str | None = Field(None, description="before each question, for an LLM; None: the paper's; '': none")
    chat_template_kwargs: dict[str, JsonValue] = Field(
        {}, description="LLM only: what its chat template reads beside the messages, such as {enable_thinking: false}"
    )
    base_steps: int = Field(
        0, ge=0, description="miniature only: steps of a base model trained here; 0: the one in the library"
    )
    base_continued: bool = Field(
        False, description="miniature only: base_steps go on from the library's base model, not from random weights"
    )
    base_fix_rate: float = Field(
        miniature.P_FIX, ge=0, le=1, description="miniature only: wrong guesses that its training texts fix, a share"
    )
    base_break_rate: float = Field(
        0.0, ge=0, le=1, description="miniature only: right guesses that its training texts break, a share"
    )
    base_reguess_rate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="miniature only: wrong guesses that its training texts replace by another, a share",
    )
    base_batch_size: int = Field(64, ge=1, description="miniature only: texts per step")
    base_learning_rate: float = Field(5e-3, gt=0, description="miniature only: peak learning rate, linear decay")
    sft_steps: int = Field(0, ge=0, description="LLM only: supervised steps on worked solutions first; 0: none")
    sft_batch_size: int = Field(16, ge=1, description="LLM only: solutions per supervised step")
    sft_learning_rate: float = Field(1e-3, gt=0, description="LLM only: its peak learning rate, linear decay")
    sft_lora_rank: int = Field(16, ge=1, description="LLM only: rank of its LoRA, which is merged afterwards")


class AddedTrainSettings(_Settings):
    """What the experiment adds to the trainer's own settings."""

    schedule: Literal["joint", "alternating"] = Field(
        "joint", description="joint: all layers in each step; alternating: a step per layer in turn (an ablation)"
    )
    prompts_per_step: int = Field(16, ge=1, description="questions per optimizer step")
    micro_batch_size: int = Field(
        128, ge=1, description="layer-1 rows of one forward pass; a divisor of prompts_per_step * num_generations"
    )
    max_steps: int = Field(100, ge=1, description="optimizer steps")
    match_tokens_of: str | None = Field(
        None, description="train until as many tokens are sampled as this arm's run of the same seed sampled"
    )
    lora_rank: int = Field(0, ge=0, description="rank of LoRA on all linear layers; 0: all weights are trained")
    lora_alpha: int = Field(32, ge=1, description="LoRA's scale")
    probe_steps: int = Field(
        0, ge=0, description="miniature only: steps between two measurements of the fix rate on blanks; 0: none"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    load_in_4bit: bool = Field(False, description="NF4 base weights through bitsandbytes; needs lora_rank > 0")
    train_data: str = Field(
        "miniature",
        description="training set: miniature, sums, gsm8k, math, or a .jsonl, .json or .csv file of your own",
    )
    train_problems: int = Field(
        4000, ge=0, description="questions in the training set; of a real one at most, and 0: all"
    )


class TrainSettings(AddedTrainSettings, create_model("_Declared", __base__=_Settings, **_declared(MGRPOSettings))):
    """What a training run depends on, beside the base model."""


class EvalSettings(_Settings):
    """What an evaluation depends on, beside the trained model; the same for every arm. Both attempts are greedy."""

    benchmarks: list[str] = Field(
        ["chains"], min_length=1, description="test sets: generated ones, real ones, or files of your own"
    )
    validation_problems: int = Field(
        200, ge=1, description="questions that settings are chosen on; of a real set, held out of its training split"
    )
    test_problems: int = Field(300, ge=0, description="questions of each test set; of a real one at most, and 0: all")
    test_draw: int = Field(
        0,
        ge=0,
        description="which draw of the test problems; of the miniature, another one shares next to none with it",
    )
    control_arms: list[str] = Field(
        [], description="arms that also get the controls and correct each other's drafts (experiment/controls.py)"
    )
    samples: int = Field(0, ge=0, description="attempts sampled per problem, for pass@k and maj@k; 0: none")
    probe_problems: int = Field(
        100, ge=1, description="problems of each test set, at most, for the costlier questions: samples, other phrases"
    )
    eval_batch_size: int = Field(200, ge=1, description="prompts of one generation call")
    eval_phrase: int | str = Field(1, description="guiding phrase at test: a number (1 to 7), or a text of your own")

    @field_validator("eval_phrase", mode="before")
    @classmethod
    def _number(cls, phrase: Any) -> Any:
        """One name for each of the known phrases."""
        if phrase in PHRASES:
            return PHRASES.index(phrase) + 1
        return int(phrase) if isinstance(phrase, str) and phrase.isdecimal() else phrase


class Config(ModelSettings, TrainSettings, EvalSettings):
    """One run: a profile, an arm, a seed, and every setting resolved."""

    profile: str = Field(description="name of a file in profiles/, or of a YAML file of your own, without .yaml")
    arm: str = Field("mgrpo", description="base, or an arm of the profile")
    seed: int = Field(0, ge=0, description="of the training run")
    seeds: list[int] = Field([0], min_length=1, description="seeds of the whole experiment")
    arms: dict[str, dict[str, Any]] = Field(
        {}, description="the trained arms: name and the training settings in which it differs"
    )
    bases: dict[str, dict[str, Any]] = Field(
        {},
        description="base models that the whole experiment is repeated with: name and the model settings that differ",
    )
    base: str = Field("", description="which of `bases`; empty: the profile's own settings, or all of them in turn")
    checkpoint_steps: int = Field(
        10, ge=0, description="optimizer steps between checkpoints that an interrupted training resumes from; 0: none"
    )
    output_root: str = Field(
        OUT,
        description="folder that results/ and figures/ go to; a relative one counts from the repository, which is '.'",
    )
    data_dir: str = Field(
        "", description="folder of the real benchmarks' files (tasks/benchmarks.yaml); empty: the hub"
    )

    _overrides: dict[str, Any] = {}
    _files: dict[str, Path] = {}
    _model_folder: Path | None = None
    _profile_file: Path | None = None

    @property
    def is_miniature(self) -> bool:
        """Whether the model is the embedded miniature, whose prompts are plain text; else a language model, with messages."""
        return self.model == "miniature"

    def prompt(self, question: str) -> Prompt:
        """The layer-1 prompt of a question."""
        return miniature.prompt(question) if self.is_miniature else chat_prompt(question, self.system_prompt)

    # ------------------------------------------------------------------------------------------ where things are
    @property
    def source(self) -> str:
        """What `load_config` takes for this profile: its name, or the path of a file of the user's own."""
        return str(self._profile_file or self.profile)

    @property
    def output(self) -> Path:
        return from_repository(self.output_root)

    @property
    def results(self) -> Path:
        return self.output / "results" / self.profile / self.base

    @property
    def figures(self) -> Path:
        return self.output / "figures" / self.profile

    @property
    def run_name(self) -> str:
        return self.arm if self.arm == "base" else f"{self.arm}-seed{self.seed}"

    @property
    def run_folder(self) -> Path:
        """Folder of this run: model, metrics, manifest, executed notebook."""
        return self.results / "runs" / self.run_name

    def manifest(self, kind: str) -> Path:
        """What tells how a result of this model was made: its training (``run``), or ``records``, ``samples``, ``rounds``."""
        return self.run_folder / "run.json" if kind == "run" else self.results / kind / f"{self.run_name}.json"

    @property
    def data_folder(self) -> Path | None:
        return from_repository(self.data_dir) if self.data_dir else None

    @property
    def files(self) -> dict[str, Path]:
        """Where the user's own data sets are, by the names that `train_data` and `benchmarks` have for them."""
        return self._files

    @property
    def model_folder(self) -> Path | None:
        """The folder of the model, if it was given as one."""
        return self._model_folder

    @property
    def model_location(self) -> str:
        """What the model is loaded from: its folder, or its hub id.

        Raises:
            ConfigError: the profile knows its model by its content alone, and no folder was given.
        """
        if self.model_content and self._model_folder is None:
            raise ConfigError(
                f"profile {self.profile} needs the folder of {self.model} (content {self.model_content}); the head of "
                f"its file in profiles/ says how to make it. Then set model to it (for make: MODEL=folder). A hub id "
                "such as MODEL=owner/name works too, and gives other numbers"
            )
        return str(self._model_folder or self.model)

    def of_arm(self, arm: str, seed: int | None = None) -> "Config":
        """The same experiment with another arm (and seed)."""
        return load_config(self.source, **{**self._overrides, "arm": arm, "seed": self.seed if seed is None else seed})

    def of_base(self, base: str) -> "Config":
        """The same experiment with one of the profile's base models."""
        return load_config(self.source, **{**self._overrides, "arm": self.arm, "seed": self.seed, "base": base})

    def at_hand(self, what: str) -> "Config":
        """The same experiment where `what` is, such as ``summary.json``: in its own folder, or else as committed."""
        if (self.results / what).exists():
            return self
        return load_config(self.source, **{**self._overrides, "arm": self.arm, "seed": self.seed, "output_root": "."})

    def settings(self, stage: type[_Settings]) -> dict[str, Any]:
        """The settings of one stage, as plain data."""
        return self.model_dump(include=set(stage.model_fields))


def load_config(profile: str, **overrides: Any) -> Config:
    """Resolve the configuration of one run.

    Args:
        profile: name of a file in ``profiles/``, or the path of a YAML file, whose stem is the profile's name.
        overrides: any setting of `Config`; ``None`` means: as the profile says.

    Raises:
        ConfigError: unknown profile, arm or setting, wrong type, out of range, or a contradiction; the message says what
            to write instead.
    """
    from mgrpo_lib.experiment import checks  # it needs the names above

    profile, file = profiles.find(str(profile))
    base = profiles.content(file)
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if "match_tokens_of" in overrides:
        raise ConfigError(
            "match_tokens_of belongs into an arm's line of the profile; given for all arms they would wait for each other"
        )
    _check_names(base, list(Config.model_fields), profiles.short(file))
    _check_names(overrides, list(Config.model_fields), "parameters")
    arms = overrides.get("arms", base.get("arms", {}))
    if not isinstance(arms, dict) or not all(isinstance(changes, dict) for changes in arms.values()):
        raise ConfigError(f"arms is {arms!r}; write each arm with the settings it changes, such as {{mgrpo: {{}}}}")
    arm = overrides.get("arm", "mgrpo" if arms else "base")
    if arm != "base" and arm not in arms:
        raise ConfigError(f"unknown arm {arm!r} in profile {profile!r}; valid: {', '.join(['base', *arms])}")
    for name, changes in arms.items():
        _check_names(changes, list(TrainSettings.model_fields), f"arm {name}, which may change training settings alone")
    bases, start = overrides.get("bases", base.get("bases", {})), overrides.get("base", "")
    if not isinstance(bases, dict) or not all(isinstance(changes, dict) for changes in bases.values()):
        raise ConfigError(
            f"bases is {bases!r}; write each with the model settings it changes, such as {{one: {{base_steps: 9}}}}"
        )
    if start and start not in bases:
        raise ConfigError(f"unknown base {start!r} in profile {profile!r}; {nearest(str(start), list(bases))}")
    for name, changes in bases.items():
        _check_names(changes, list(ModelSettings.model_fields), f"base {name}, which may change model settings alone")
    chosen = {**(bases[start] if start else {}), **({} if arm == "base" else arms[arm])}
    try:
        cfg = Config(**{**base, **chosen, **overrides, "profile": profile, "arm": arm})
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(e) for e in error.errors())) from None
    cfg = checks.checked(cfg, base.get("model"), overrides.get("model_content"))
    cfg._profile_file = None if profile in profile_names() else file
    cfg._overrides = {name: value for name, value in overrides.items() if name not in ("arm", "seed")}
    return cfg


def _check_names(values: dict[str, Any], valid: list[str], where: str) -> None:
    for name in values:
        if name not in valid:
            raise ConfigError(
                f"unknown setting {name!r} in {where}; {nearest(name, valid)} (all: docs/settings.md, mgrpo_lib/experiment/settings.py)"
            )


def _sentence(error: dict) -> str:
    name, given = ".".join(str(part) for part in error["loc"]), error["input"]
    fix = ""
    if error["type"] == "list_type" and isinstance(given, str | int | float):
        fix = f"; write [{given}]"
    elif error["type"] == "float_type" and isinstance(given, str):  # YAML reads 1e-4 as a text
        with contextlib.suppress(InvalidOperation):
            fix = f"; write {Decimal(given):f}"
    elif error["type"] == "string_type" and isinstance(given, int | float):
        fix = f"; write '{given}' in quotes"
    return f"setting {name!r} is {given!r} ({type(given).__name__}): {error['msg'][0].lower()}{error['msg'][1:]}{fix}"
