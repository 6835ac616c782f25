"""Under which key a result is reused. It is a hash of every setting that it depends on, of its inputs' keys, and of the version
of the code that made it (`mgrpo_lib.experiment.versions`). No torch.

Every function takes the versions that a result was made with. The default is the present ones, which decide whether it is
reused; a report passes those of a manifest (`made_with`), so that it can read results of older versions.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from mgrpo_lib.experiment.settings import GENERATORS, Config, EvalSettings, ModelSettings, TrainSettings
from mgrpo_lib.experiment.store import finished, read_json
from mgrpo_lib.experiment.versions import CURRENT, DATA_VERSION, NAMES, REPORT_VERSION, Versions
from mgrpo_lib.tasks import miniature
from mgrpo_lib.tasks.benchmarks import SETS, identity

# Settings that the first versions hashed at any value. One that came later counts only where it is not at its default, so that
# a new setting leaves every key
FIRST = frozenset((
    "model", "model_revision", "model_content", "dtype", "system_prompt", "base_steps", "base_batch_size",
    "base_learning_rate", "sft_steps", "sft_batch_size", "sft_learning_rate", "sft_lora_rank", "num_layers",
    "num_generations", "drafts_per_prompt", "select_drafts", "num_corrections", "keep_corrections",
    "correction_advantage", "progress_bonus", "schedule", "layer_weights", "phrases", "phrase_role",
    "prompts_per_step", "micro_batch_size", "max_steps", "match_tokens_of", "learning_rate", "beta", "epsilon",
    "loss_type", "temperature", "max_completion_length", "lora_rank", "lora_alpha", "gradient_checkpointing",
    "load_in_4bit", "train_data", "train_problems", "benchmarks", "validation_problems", "test_problems", "test_draw",
    "control_arms", "samples", "probe_problems", "eval_batch_size", "eval_phrase",
))  # fmt: skip
GONE = {"use_vllm": False}  # a setting of the first versions that left, at the value that all results were made with
NO_RESULT = {"report_to"}  # a setting that no number depends on


def made_with(manifest: Path) -> Versions:
    """The versions that a manifest names as its makers.

    Raises:
        FileNotFoundError: there is no such manifest.
    """
    environment = read_json(manifest)["environment"]
    return Versions(environment["training_version"], environment["evaluation_version"])


def key_of(*parts: Any) -> str:
    """Hash plain data: two results with the same key have the same settings, inputs and versions."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def settings_of(cfg: Config, stage: type) -> dict[str, Any]:
    """The settings of a stage that a key is made from."""
    defaults = {name: field.get_default(call_default_factory=True) for name, field in stage.model_fields.items()}
    return {
        name: value
        for name, value in cfg.settings(stage).items()
        if name in FIRST or (value != defaults[name] and name not in NO_RESULT)
    }


def base_key(cfg: Config, made: Versions = CURRENT) -> str:
    """Key of the base model: its settings and, where it is trained or shipped, what it is made from."""
    cfg, data = cfg.of_arm("base"), []
    settings = settings_of(cfg, ModelSettings)
    if cfg.model_content:  # the folder's content stands for it, whatever it is called
        del settings["model"]
    if cfg.is_miniature and cfg.base_steps == 0:
        data = [hashlib.sha256((miniature.SHIPPED / "model.safetensors").read_bytes()).hexdigest()]
    elif cfg.sft_steps > 0:
        data = [cfg.train_data, cfg.train_problems, training_contents(cfg)]
    return key_of("base", settings, data, made.names[0])


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


def run_key(cfg: Config, made: Versions = CURRENT) -> str:
    """Key of a training run: its settings, its data, its seed, its base model, and the run whose tokens it matches."""
    matched = run_key(cfg.of_arm(cfg.match_tokens_of), made) if cfg.match_tokens_of else None
    if cfg.arm == "base":
        return base_key(cfg, made)
    settings = GONE | settings_of(cfg, TrainSettings)
    return key_of("run", settings, training_contents(cfg), cfg.seed, base_key(cfg, made), matched)


def validation_key(cfg: Config, made: Versions = CURRENT) -> str:
    how = (cfg.validation_problems, cfg.eval_batch_size, cfg.eval_phrase, *same_for_all(cfg))
    return key_of("validation", how, cfg.train_data, training_contents(cfg), run_key(cfg, made), made.names[1])


def evaluation_key(cfg: Config, made: Versions = CURRENT) -> str:
    how = (settings_of(cfg, EvalSettings), *same_for_all(cfg))
    return key_of("evaluation", how, contents(cfg, "test", cfg.benchmarks), run_key(cfg, made), made.names[1])


def same_for_all(cfg: Config) -> tuple:
    """Training settings that the base model's evaluation depends on too."""
    return cfg.max_completion_length, cfg.phrase_role, cfg.load_in_4bit


def group_name(cfg: Config) -> str:
    """What is tested together: ``base``, or the seed."""
    return "base" if cfg.arm == "base" else f"seed{cfg.seed}"


def tested_together(cfg: Config) -> list[Config]:
    """The models that one notebook tests: the base model (arm ``base``), or every arm of a seed."""
    return [cfg] if cfg.arm == "base" else [cfg.of_arm(arm) for arm in cfg.arms]


def controls_key(cfg: Config, made: Versions = CURRENT) -> str:
    return key_of(
        "controls", [(run.arm, evaluation_key(run, made)) for run in [cfg.of_arm("base"), *tested_together(cfg)]]
    )


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
        NAMES["data"][DATA_VERSION],
    )


def summary_key(cfg: Config) -> str:
    """Key of the summary: every evaluation that goes into it, and the code that computes its numbers."""
    return key_of("summary", experiment_key(cfg), NAMES["report"][REPORT_VERSION])


def experiment_key(cfg: Config) -> str:
    """Key of all that was trained and evaluated, and under which names, however it is summarised."""
    return key_of("experiment", [(run.run_name, evaluation_key(run)) for run in all_runs(cfg)])


def dose_key(cfg: Config) -> str:
    """Key of the comparison of base models: every experiment that goes into it, and the code that computes its numbers."""
    every = [(base, experiment_key(cfg.of_base(base))) for base in cfg.bases]
    return key_of("dose", every, NAMES["report"][REPORT_VERSION])


def all_runs(cfg: Config) -> list[Config]:
    """Every model of the experiment: the base model, then each arm with each seed."""
    return [cfg.of_arm("base")] + [cfg.of_arm(arm, seed) for arm in cfg.arms for seed in cfg.seeds]


def finished_run(cfg: Config) -> dict[str, Any] | None:
    """The manifest of this arm's and seed's training run, if it was made with these parameters and its model is at
    hand.
    """
    done = finished(cfg.manifest("run"), run_key(cfg))
    # a hub model or a user's folder is not copied
    borrowed = cfg.arm == "base" and not cfg.is_miniature and cfg.sft_steps == 0
    return done if done and (borrowed or (cfg.run_folder / "model").exists()) else None
