"""Strict, typed configuration: the profile of a machine, the arm of the experiment, and what the user overrides.

A setting is looked up in this order: what the user passed, the arm's line in the profile, the profile, the default
below. An unknown name or a wrong type stops the run before any work, with the nearest valid name.
"""

import ast
import contextlib
import functools
import importlib.util
import os
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from mgrpo_lib.experiment.modelfolder import content_of
from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.tasks import miniature, sums
from mgrpo_lib.tasks.benchmarks import SETS, TRAINING_SETS
from mgrpo_lib.tasks.files import FILE_KINDS
from mgrpo_lib.tasks.names import nearest

ROOT = Path(__file__).resolve().parents[2]  # the repository: profiles, notebooks, and the default place of results
DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
GENERATORS = {"miniature": miniature, "sums": sums}  # training sets that are made and not read, each with its test sets
GENERATED = {name: module for module in GENERATORS.values() for name in module.SETS}


class ConfigError(ValueError):
    """A parameter that cannot be used; the message names the mend."""


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(_Settings):
    """What the base model depends on."""

    model: str = Field("miniature", description="'miniature', a hub id, or a folder with a model and its tokenizer")
    model_revision: str | None = Field(None, description="commit, tag or branch of a hub model; None: its newest")
    model_content: str | None = Field(
        None, description="digest of a folder's model and tokenizer; found out, or pinned beside `model` in a profile"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="precision of an LLM; auto: the GPU's best, on the CPU float32 (bfloat16 is faster with AMX)",
    )
    system_prompt: str | None = Field(
        None, description="before each question, for an LLM; None: the paper's, see mgrpo_lib/method/prompts.py"
    )
    base_steps: int = Field(
        0,
        ge=0,
        description="miniature only: steps of a base model trained here; 0: the one that comes with the library",
    )
    base_batch_size: int = Field(64, ge=1, description="miniature only: texts a step")
    base_learning_rate: float = Field(5e-3, gt=0, description="miniature only: peak learning rate, linear decay")
    sft_steps: int = Field(0, ge=0, description="LLM only: supervised steps on worked solutions first; 0: none")
    sft_batch_size: int = Field(16, ge=1, description="LLM only: solutions a supervised step")
    sft_learning_rate: float = Field(1e-3, gt=0, description="LLM only: its peak learning rate, linear decay")
    sft_lora_rank: int = Field(16, ge=1, description="LLM only: rank of its LoRA, which is merged afterwards")


class TrainSettings(_Settings):
    """What a training run depends on, beside the base model. The objective's defaults are the paper's, as far as they
    are known.
    """

    num_layers: int = Field(2, ge=1, description="1: GRPO; 2: MGRPO; 3: corrections are corrected again; ...")
    num_generations: int = Field(8, ge=2, description="G: responses a question")
    drafts_per_prompt: int = Field(
        2, ge=0, description="drafts of each question that a layer passes on, at most; 0: all"
    )
    select_drafts: Literal["all", "wrong", "mixed"] = Field(
        "all", description="which drafts are passed on: all blindly, wrong ones, or half wrong and half right"
    )
    num_corrections: int = Field(4, ge=1, description="H: corrections a draft")
    keep_corrections: Literal["all", "successes"] = Field(
        "all", description="corrections that are trained on; successes: 'dynamic verification' as it is retold"
    )
    correction_advantage: Literal["group", "difference", "progress"] = Field(
        "group", description="relative to the draft's corrections; r2 - r1; or SCoRe's bonus relative to the question's"
    )
    progress_bonus: float = Field(10.0, ge=0, description="progress only: SCoRe's weight of r2 - r1")
    schedule: Literal["joint", "alternating"] = Field(
        "joint", description="joint: all layers in each step; alternating: a step for each layer in turn"
    )
    layer_weights: list[float] | None = Field(None, description="weight of each layer's loss; None: 1 each")
    phrases: list[str] = Field(
        PHRASES,
        min_length=1,
        description="guiding phrases in training, one drawn for each draft; the miniature knows these",
    )
    phrase_role: Literal["assistant", "user"] = Field(
        "assistant", description="who says the guiding phrase, in training and at test; user: chat models only"
    )
    prompts_per_step: int = Field(16, ge=1, description="questions an optimizer step")
    micro_batch_size: int = Field(
        128, ge=1, description="layer-1 rows of one forward pass; a divisor of prompts_per_step * num_generations"
    )
    max_steps: int = Field(100, ge=1, description="optimizer steps")
    match_tokens_of: str | None = Field(
        None, description="train until as many tokens are generated as this arm's run of the same seed generated"
    )
    learning_rate: float = Field(5e-7, gt=0, description="Adam's learning rate, constant")
    beta: float = Field(0.001, ge=0, description="weight of the KL term; 0: no reference model")
    epsilon: float = Field(0.2, gt=0, description="clip range of the ratio")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = Field(
        "grpo", description="TRL's loss normalisation: grpo is the equation that the paper is said to have"
    )
    temperature: float = Field(1.0, gt=0, description="sampling temperature in training")
    max_completion_length: int = Field(64, ge=1, description="tokens of one attempt, at most; in training and at test")
    lora_rank: int = Field(
        0, ge=0, description="0: all weights are trained; else the rank of LoRA on all linear layers"
    )
    lora_alpha: int = Field(32, ge=1, description="LoRA's scale")
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    load_in_4bit: bool = Field(False, description="NF4 base weights through bitsandbytes; needs lora_rank > 0")
    use_vllm: bool = Field(False, description="sample in training through vLLM, on the same GPU; not in 4 bits")
    train_data: str = Field(
        "miniature",
        description="training set: miniature, sums, gsm8k, math, or a .jsonl, .json or .csv file of your own",
    )
    train_problems: int = Field(
        4000, ge=0, description="questions in the training set; of a real one at most, and 0: all"
    )


class EvalSettings(_Settings):
    """What an evaluation depends on, beside the trained model; the same for every arm. Both attempts are decoded
    greedily.
    """

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
        [],
        description="arms that also get the controls, and correct each other's drafts; see mgrpo_lib/experiment/controls.py",
    )
    samples: int = Field(0, ge=0, description="attempts sampled for each problem, for pass@k and maj@k; 0: none")
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

    profile: str = Field(description="name of a file in profiles/")
    arm: str = Field("mgrpo", description="base, or an arm of the profile")
    seed: int = Field(0, ge=0, description="of the training run")
    seeds: list[int] = Field([0], min_length=1, description="seeds of the whole experiment")
    arms: dict[str, dict[str, Any]] = Field(
        {}, description="the trained arms: name and the training settings in which it differs"
    )
    checkpoint_steps: int = Field(
        10, ge=0, description="optimizer steps between checkpoints that an interrupted training goes on from; 0: none"
    )
    push_to_hub: str = Field(
        "",
        exclude=True,  # no part of results
        description="hub name owner/name; each trained run goes to owner/name-<run>; empty: nothing is uploaded",
    )
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = Field(
        "none",
        exclude=True,  # no part of results
        description="tracker that a training's numbers also go to; see mgrpo_lib/explore/live.py",
    )
    output_root: str = Field("", description="folder that results/ and figures/ go to; empty: the repository")
    data_dir: str = Field(
        "",
        description="folder of the real benchmarks' files, as mgrpo_lib/tasks/benchmarks.yaml lists them; empty: the hub",
    )

    @property
    def template(self) -> str:
        """How a question becomes a prompt; see `mgrpo_lib.method.prompts.first_prompt`."""
        return "miniature" if self.model == "miniature" else "chat"

    # ------------------------------------------------------------------------------------------ where things are
    @property
    def output(self) -> Path:
        return Path(self.output_root).expanduser().resolve() if self.output_root else ROOT

    @property
    def results(self) -> Path:
        return self.output / "results" / self.profile

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
                f"profile {self.profile} needs the folder of {self.model} (content {self.model_content}); its head says how to "
                f"make it (profiles/{self.profile}.yaml), then set model to it (for make: MODEL=folder). A hub id such as "
                "MODEL=owner/name works too, and gives other numbers"
            )
        return str(self._model_folder or self.model)

    def of_arm(self, arm: str, seed: int | None = None) -> "Config":
        """The same experiment with another arm (and seed)."""
        return load_config(self.profile, **{**self._overrides, "arm": arm, "seed": self.seed if seed is None else seed})

    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict)
    _files: dict[str, Path] = PrivateAttr(default_factory=dict)
    _model_folder: Path | None = PrivateAttr(None)

    def settings(self, stage: type[_Settings]) -> dict[str, Any]:
        """The settings of one stage, as plain data."""
        return self.model_dump(include=set(stage.model_fields))


TEXTS = {name for name, field in Config.model_fields.items() if field.annotation in (str, str | None)}


def profile_names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def from_repository(path: str) -> Path:
    """A path of the user's; a relative one counts from the repository, for notebooks and commands alike."""
    return (ROOT / Path(path).expanduser()).resolve()


def load_config(profile: str, **overrides: Any) -> Config:
    """The resolved configuration of one run.

    Args:
        profile: name of a file in ``profiles/``.
        overrides: any setting of `Config`; ``None`` means: as the profile says.

    Raises:
        ConfigError: unknown profile, arm or setting, wrong type, out of range, or a contradiction; the message says
            what to write instead.
    """
    if profile not in profile_names():
        raise ConfigError(f"unknown profile {profile!r}; {nearest(str(profile), profile_names())}")
    base = _profile(profile)
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if "match_tokens_of" in overrides:
        raise ConfigError(
            "match_tokens_of belongs into an arm's line of the profile; given for all arms they would wait for each other"
        )
    _check_names(base, f"profiles/{profile}.yaml")
    _check_names(overrides, "parameters")
    arms = overrides.get("arms", base.get("arms", {}))
    if not isinstance(arms, dict) or not all(isinstance(changes, dict) for changes in arms.values()):
        raise ConfigError(f"arms is {arms!r}; write each arm with the settings it changes, such as {{mgrpo: {{}}}}")
    arm = overrides.get("arm", "mgrpo" if arms else "base")
    if arm != "base" and arm not in arms:
        raise ConfigError(f"unknown arm {arm!r} in profile {profile!r}; {nearest(str(arm), ['base', *arms])}")
    for name, changes in arms.items():
        unknown = [key for key in changes if key not in TrainSettings.model_fields]
        if unknown:
            raise ConfigError(
                f"arm {name!r} may only change training settings, not {unknown[0]!r}; {nearest(unknown[0], list(TrainSettings.model_fields))}"
            )
    try:
        cfg = Config(**{**base, **({} if arm == "base" else arms[arm]), **overrides, "profile": profile, "arm": arm})
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(e) for e in error.errors())) from None
    cfg = _name_model(_name_files(cfg), base, overrides.get("model_content"))
    _check_sense(cfg)
    _check_model(cfg)
    _check_data(cfg)
    _check_output(cfg)
    _check_hub(cfg)
    _check_tracker(cfg)
    cfg._overrides = {name: value for name, value in overrides.items() if name not in ("arm", "seed")}
    return cfg


def _profile(name: str) -> dict[str, Any]:
    """The settings in a profile's file, over those of the profile that it names with ``extends``."""
    content = deepcopy(_parsed((ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")))
    return {**(_profile(content.pop("extends")) if "extends" in content else {}), **content}


@functools.cache
def _parsed(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


def _name_files(cfg: Config) -> Config:
    """Names the user's files by their stems, as results do: where a file lies on a machine is no part of them."""
    names, files = {}, {}
    for given in [cfg.train_data, *cfg.benchmarks]:
        path = from_repository(given)
        own = path.suffix.lower() in FILE_KINDS
        names[given] = path.stem if own else given
        if not own:
            continue
        if not path.is_file():
            raise ConfigError(f"there is no file {given!r}; a relative path counts from {ROOT}")
        if path.stem in {*SETS, *GENERATORS, *GENERATED, "validation", *files}:
            raise ConfigError(
                f"{given!r} would be called {path.stem!r} in the results, as another set is; rename the file"
            )
        files[path.stem] = path
    named = {"train_data": names[cfg.train_data], "benchmarks": [names[given] for given in cfg.benchmarks]}
    cfg = cfg.model_copy(update=named)
    cfg._files = files
    return cfg


def _name_model(cfg: Config, profile: dict[str, Any], wanted: str | None) -> Config:
    """Names a model folder by its last part and its content, as results do: where it lies is no part of them.

    Args:
        wanted: the content that the user asks for. What a profile pins is the content of its own model.
    """
    folder = from_repository(cfg.model)
    if cfg.model == "miniature" or (cfg.model == profile.get("model") and not folder.is_dir()):
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
        raise ConfigError(
            f"the model in {folder} would be called 'miniature' in the results, as ours is; rename the folder"
        )
    try:
        content = content_of(folder)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if wanted not in (None, content):
        raise ConfigError(
            f"model_content asks for {wanted}, and {folder} holds {content}; give the right folder, or leave it out"
        )
    cfg = cfg.model_copy(update={"model": folder.name, "model_content": content})
    cfg._model_folder = folder
    return cfg


def _check_model(cfg: Config) -> None:
    """A model that cannot be had, and settings that it does not go with."""
    if cfg.model == "miniature":
        for name in ("model_revision", "model_content", "system_prompt", "sft_steps"):
            if getattr(cfg, name):
                raise ConfigError(f"{name} is for language models, and the model is the miniature; leave it out")
        for phrase in [*cfg.phrases, cfg.eval_phrase]:
            if isinstance(phrase, str) and phrase not in PHRASES:
                raise ConfigError(
                    f"to the miniature a guiding phrase is one sign, and it does not know {phrase!r}; take some of its own "
                    "seven (mgrpo_lib/method/prompts.py), or set model"
                )
        if cfg.dtype == "bfloat16" or cfg.use_vllm:
            raise ConfigError(
                "the miniature computes in float32 on the CPU; leave dtype and use_vllm out, or set model"
            )
        return
    if cfg.model_revision and cfg.model_content:
        raise ConfigError("model_revision is for a hub model, and the model is a folder; leave it out")
    ranks = [run.get("lora_rank", cfg.lora_rank) for run in cfg.arms.values()]
    if cfg.model_revision and cfg.beta > 0 and 0 in ranks:
        raise ConfigError(
            "model_revision does not reach TRL's reference model where all weights are trained; set lora_rank, beta=0, or model "
            "to a folder with that revision"
        )
    if cfg.sft_steps and cfg.train_data in TRAINING_SETS:
        raise ConfigError(
            f"sft_steps {cfg.sft_steps} warms up on worked solutions, which {cfg.train_data} has not here; set sft_steps=0, or "
            "train_data to sums or to a file of your own with a column 'solution'"
        )
    if cfg.use_vllm and any(run.get("load_in_4bit", cfg.load_in_4bit) for run in [{}, *cfg.arms.values()]):
        raise ConfigError(
            "use_vllm samples with weights that 4 bits have packed; set load_in_4bit=false, or use_vllm=false"
        )
    if cfg.use_vllm and importlib.util.find_spec("vllm") is None:
        raise ConfigError("use_vllm needs vLLM and a CUDA GPU: pip install 'trl[vllm]', or set use_vllm=false")


def _check_data(cfg: Config) -> None:
    """Data sets that do not exist, or that the model cannot read."""
    generated = [name for module in GENERATORS.values() for name in module.BENCHMARKS]
    known = {"training set": [*GENERATORS, *TRAINING_SETS], "benchmark": [*generated, *SETS]}
    for kind, name in [("training set", cfg.train_data), *[("benchmark", name) for name in cfg.benchmarks]]:
        if name in cfg.files:
            continue
        if name not in known[kind]:
            raise ConfigError(
                f"unknown {kind} {name!r}; {nearest(name, known[kind])} Or give the path of a {', '.join(FILE_KINDS)} file"
            )
        if cfg.model == "miniature" and name not in {"miniature", *miniature.BENCHMARKS}:
            raise ConfigError(f"{kind} {name!r} is text, and the model 'miniature' reads arithmetic alone; set model")
        if cfg.model != "miniature" and name == "miniature":
            raise ConfigError(
                f"{kind} {name!r} is in the miniature's own signs; for {cfg.model} set train_data, and benchmarks too"
            )
    if len(set(cfg.benchmarks)) < len(cfg.benchmarks):
        raise ConfigError(f"benchmarks {cfg.benchmarks} repeat themselves; give each once")
    if cfg.train_problems == 0 and cfg.train_data in GENERATORS:
        raise ConfigError(f"train_problems 0 means all, and {cfg.train_data} has no end; give a number")
    if cfg.test_problems == 0 and not set(cfg.benchmarks).isdisjoint(GENERATED):
        raise ConfigError("test_problems 0 means all, and generated sets have no end; give a number")


def _check_output(cfg: Config) -> None:
    """A Drive that is not mounted would be an ordinary folder of Colab's, gone with the session."""
    if cfg.output.is_relative_to(DRIVE) and not (DRIVE / "MyDrive").is_dir():
        raise ConfigError(
            f"output_root {cfg.output_root!r} is on Google Drive, which is not mounted; run this first: "
            f"from google.colab import drive; drive.mount('{DRIVE}')"
        )


def _check_hub(cfg: Config) -> None:
    """An upload that could only fail, and after hours."""
    if not cfg.push_to_hub:
        return
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if cfg.push_to_hub.count("/") != 1:
        raise ConfigError(f"push_to_hub {cfg.push_to_hub!r} is no name of the hub; write owner/name")
    for suffix in ["", *(f"-{arm}-seed{seed}" for arm in cfg.arms for seed in cfg.seeds)]:
        try:
            validate_repo_id(cfg.push_to_hub + suffix)
        except HFValidationError as error:
            raise ConfigError(f"push_to_hub: {error} Write owner/name") from None
    if cfg.sft_steps:
        raise ConfigError(
            "push_to_hub would upload adapters without the warmed-up model that they belong to; write whole models with "
            "mgrpo_lib.experiment.models.merge_adapter, and upload those"
        )
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            "push_to_hub is set, and so is HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, under which nothing is uploaded; unset one"
        )
    if not re.fullmatch(r"[!-~]+", os.environ.get("HF_TOKEN", "").strip()):
        raise ConfigError(
            "push_to_hub needs a token that may write, in the environment variable HF_TOKEN, and there is none that could "
            "be sent; a login on this machine is not used. Set HF_TOKEN, or leave push_to_hub out"
        )


def _check_tracker(cfg: Config) -> None:
    if cfg.report_to != "none" and importlib.util.find_spec(cfg.report_to) is None:
        raise ConfigError(
            f"report_to {cfg.report_to!r} needs a package that is not installed: pip install {cfg.report_to}, or leave report_to out"
        )


def _check_names(values: dict[str, Any], where: str) -> None:
    for name in values:
        if name not in Config.model_fields:
            raise ConfigError(f"unknown parameter {name!r} in {where}; {nearest(name, list(Config.model_fields))}")


def _sentence(error: dict) -> str:
    name, given = ".".join(str(part) for part in error["loc"]), error["input"]
    mend = f"; write [{given}]" if error["type"] == "list_type" and isinstance(given, str | int | float) else ""
    return (
        f"parameter {name!r} is {given!r} ({type(given).__name__}): {error['msg'][0].lower()}{error['msg'][1:]}{mend}"
    )


def _check_correction(cfg: Config) -> None:
    """Correction layers that would have nothing to learn from; `MGRPOConfig` refuses the same."""
    if cfg.num_layers == 1:
        return
    compared = {"group": cfg.num_corrections, "progress": cfg.num_corrections * (cfg.drafts_per_prompt or 2)}
    if compared.get(cfg.correction_advantage) == 1:  # the size of the group; r2 - r1 needs none
        raise ConfigError(
            "num_corrections 1: relative to itself alone the advantage of a correction is always zero; use 2 or more, or "
            "correction_advantage difference"
        )
    if cfg.keep_corrections == "successes" and cfg.correction_advantage != "difference":
        raise ConfigError(
            "keep_corrections successes leaves rewards of 1 alone: relative to those of the same draft all advantages are zero; "
            "set correction_advantage difference, the one rule it is defined with, or keep all"
        )
    if cfg.select_drafts == "mixed" and cfg.drafts_per_prompt < 2:
        raise ConfigError(
            "select_drafts mixed takes half wrong and half right drafts; set drafts_per_prompt to 2 or more"
        )
    if cfg.phrase_role == "user" and cfg.template == "miniature":
        raise ConfigError("phrase_role user needs a chat model; the miniature has no turns, use assistant")


def _check_sense(cfg: Config) -> None:
    """Combinations that cannot work, said before any work is done."""
    rows = cfg.prompts_per_step * cfg.num_generations
    if rows % cfg.micro_batch_size:
        fitting = max(d for d in range(1, min(rows, cfg.micro_batch_size) + 1) if rows % d == 0)
        raise ConfigError(
            f"micro_batch_size {cfg.micro_batch_size} does not divide prompts_per_step * num_generations = {rows}; use {fitting}"
        )
    if 0 < cfg.train_problems < cfg.prompts_per_step:
        raise ConfigError(
            f"train_problems {cfg.train_problems} are fewer than prompts_per_step {cfg.prompts_per_step}; no step could be made"
        )
    if cfg.layer_weights is not None and len(cfg.layer_weights) != cfg.num_layers > 1:
        raise ConfigError(
            f"layer_weights has {len(cfg.layer_weights)} entries for {cfg.num_layers} layers; give one weight a layer"
        )
    if isinstance(cfg.eval_phrase, int) and not 1 <= cfg.eval_phrase <= len(PHRASES):
        raise ConfigError(f"eval_phrase {cfg.eval_phrase}: the guiding phrases are 1 to {len(PHRASES)}; or give a text")
    if not all(isinstance(phrase, int) or phrase.strip() for phrase in [*cfg.phrases, cfg.eval_phrase]):
        raise ConfigError("a guiding phrase is empty; write a text, such as 'Is that so?'")
    _check_correction(cfg)
    if cfg.drafts_per_prompt > cfg.num_generations and cfg.num_layers > 1:
        raise ConfigError(
            f"drafts_per_prompt {cfg.drafts_per_prompt} exceeds num_generations {cfg.num_generations}; use at most that, or 0 for all"
        )
    if cfg.load_in_4bit and cfg.lora_rank == 0:
        raise ConfigError(
            "load_in_4bit freezes the weights, so something else must be trained; set lora_rank, for example to 16"
        )
    if cfg.match_tokens_of is not None and cfg.match_tokens_of not in cfg.arms:
        raise ConfigError(
            f"match_tokens_of names the unknown arm {cfg.match_tokens_of!r}; {nearest(cfg.match_tokens_of, list(cfg.arms))}"
        )
    if cfg.match_tokens_of is not None and "match_tokens_of" in cfg.arms[cfg.match_tokens_of]:
        raise ConfigError(
            f"match_tokens_of names {cfg.match_tokens_of!r}, which itself matches another arm; name one that does not"
        )
    for name in cfg.control_arms:
        if name not in {"base", *cfg.arms}:
            raise ConfigError(f"control_arms names the unknown arm {name!r}; {nearest(name, ['base', *cfg.arms])}")
    if len(set(cfg.seeds)) < len(cfg.seeds):
        raise ConfigError(f"seeds {cfg.seeds} repeat themselves; give each once")


# ---------------------------------------------------------------------------------------------- from text and from
# notebooks
def parse_assignments(text: str) -> dict[str, Any]:
    """``learning_rate=1e-4 seeds=[0,1]`` as a dictionary; values are YAML, and ``1e-4`` is a number (YAML alone would
    read a string). Settings that are text stay text: ``model_revision=12e4567``, ``system_prompt='Be brief.'``.
    """
    values = {}
    for part in _parts(text):
        name, separator, value = part.partition("=")
        if not separator:
            raise ConfigError(f"cannot read {part!r}; write name=value, without spaces around '='")
        if name in values:
            raise ConfigError(f"{name} is given twice, as {values[name]!r} and as {value}; leave one out")
        if name in TEXTS and value != "null":
            values[name] = value[1:-1] if value[:1] in ("'", '"') else value
            continue
        try:
            values[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):  # the second: a date that does not exist
            raise ConfigError(
                f"cannot read {part!r}; write lists as [a, b], and texts with signs 'in quotes'"
            ) from None
        if isinstance(values[name], str):
            with contextlib.suppress(ValueError):
                values[name] = float(value)
    return values


def _parts(text: str) -> list[str]:
    """A text split at its blanks, but for those within quotes or in a value that begins with a bracket."""
    parts, depth = [""], 0
    for piece in re.findall(r""""[^"]*"|'[^']*'|\s+|.""", text):
        if depth or parts[-1].endswith("="):
            depth += (piece in "[{") - (depth > 0 and piece in "]}")
        if piece.isspace() and depth <= 0:
            parts.append("")
        else:
            parts[-1] += piece
    if depth > 0:
        raise ConfigError(f"cannot read {parts[-1]!r}: a bracket is left open; close it, or put the text 'in quotes'")
    return [part for part in parts if part]


def parse_seeds(text: str) -> list[int]:
    """``0,1,2`` or ``0 1 2`` as a list."""
    parts = [part for part in text.replace(",", " ").split() if part]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"cannot read the seeds {text!r}; write whole numbers, such as 0,1,2")
    return [int(part) for part in parts]


def from_notebook(namespace: dict[str, Any]) -> Config:
    """The configuration of a notebook, from its parameters cell and, under papermill, the injected one. Call it as
    ``from_notebook(globals())``.

    Both cells begin with the comment ``# Parameters``, so their sources are found in IPython's history, and every name
    assigned there must be a setting: a typing error stops the notebook, also one passed on papermill's own command line.

    Raises:
        ConfigError: as `load_config`; or the defaults have overwritten what papermill injected, since the cell of the
            defaults has lost its tag.
    """
    cells = [""]
    for source in reversed(namespace["In"]):
        if source.lstrip().startswith("# Parameters"):
            cells.append(source)
        elif len(cells) > 1:
            break
    first = next((source for source in namespace["In"] if source.strip()), "")
    if first.lstrip().startswith("# Parameters") and first not in cells:
        raise ConfigError(
            "the values of the first cell are overwritten by the defaults further down: papermill puts its values first where no "
            "cell is tagged 'parameters'; restore the tag (git checkout notebooks), or, in a notebook run by hand, restart the "
            "kernel and run from the top"
        )
    names = [
        node.id
        for node in ast.walk(ast.parse("\n".join(cells)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    values = {name: namespace[name] for name in dict.fromkeys(names)}
    cfg = load_config(**values) if "profile" in values else load_config("cpu", **values)
    if cfg.model == "miniature" and "transformers" in sys.modules:  # where there is nothing to wait for, bars are noise
        sys.modules["transformers"].utils.logging.disable_progress_bar()
    return cfg
