"""Model cards from result files, and the upload of trained models to the hub, which only `push_to_hub` asks for. No
torch.
"""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData

from mgrpo_lib.experiment import fingerprints, store
from mgrpo_lib.experiment.settings import Config, TrainSettings
from mgrpo_lib.method.prompts import SYSTEM_PROMPT, phrase_text
from mgrpo_lib.report import tables as report
from mgrpo_lib.tasks.benchmarks import SETS

TEMPLATE = Path(__file__).with_name("model_card.md")
ADAPTER = "adapter_config.json"
UPLOADED = ["README.md", "*.json", "*.safetensors"]  # of a model's folder, and nothing that strayed into it
# settings that mean nothing where there is one layer
CORRECTING = {"drafts_per_prompt", "select_drafts", "num_corrections", "keep_corrections", "correction_advantage"}
CORRECTING |= {"progress_bonus", "schedule", "layer_weights"}


class UploadError(RuntimeError):
    """An upload that did not come to its end; the message says what to do."""


def model_card(cfg: Config, summary: dict[str, Any] | None) -> str:
    """The card of a trained run, in Markdown with the hub's YAML. Every number in it is one of a result file.

    Args:
        cfg: arm and seed of a finished run.
        summary: the experiment's, for the numbers of problems; None: not made yet.
    """
    run, arguments = fingerprints.finished_run(cfg), store.read_json(cfg.run_folder / "arguments.json")
    ours, base = (
        store.finished(cfg.results / "records" / f"{one.run_name}.json", fingerprints.evaluation_key(one))
        for one in (cfg, cfg.of_arm("base"))
    )
    tested = ours is not None and base is not None
    adapter, base_model = _is_adapter(cfg.run_folder / "model"), base_on_hub(cfg)
    data = ModelCardData(
        base_model=base_model,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["mgrpo", "grpo", "trl"] + (["lora"] if adapter else []),
        datasets=[SETS[cfg.train_data].hub] if cfg.train_data in SETS else None,
        model_name=cfg.run_name,
        eval_results=_metadata(ours["accuracy"]) if tested else None,
    )
    settings = [
        {"setting": f"`{name}`", "value": str(run["params"][name]), "meaning": field.description}
        for name, field in TrainSettings.model_fields.items()
        if cfg.num_layers > 1 or name not in CORRECTING
    ]
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        cfg=cfg,
        run=run,
        adapter=adapter,
        base=base_model,
        arm_name=report.name_of(cfg.arm),
        results=report.markdown(_results(cfg, ours["accuracy"], base["accuracy"], summary)) if tested else None,
        evaluation_version=ours["environment"]["evaluation_version"] if tested else None,
        dtype="bfloat16" if arguments["bf16"] else "float16" if arguments["fp16"] else "float32",
        settings=report.markdown(pd.DataFrame(settings)),
        system_prompt=SYSTEM_PROMPT if cfg.system_prompt is None else cfg.system_prompt,
        base_is_dense=not cfg.of_arm("base").load_in_4bit,
        phrase=phrase_text(cfg.eval_phrase),
    )
    return f"{card}\n"


def write_cards(cfg: Config) -> list[Path]:
    """Writes ``README.md`` into the folder of every trained model of the experiment that is at hand, over PEFT's
    template; one that says the same already is left alone.
    """
    summary, paths = store.finished(cfg.results / "summary.json", fingerprints.summary_key(cfg)), []
    for run in fingerprints.all_runs(cfg):
        if run.arm == "base" or fingerprints.finished_run(run) is None:
            continue
        path, card = run.run_folder / "model" / "README.md", model_card(run, summary)
        if not path.exists() or path.read_text(encoding="utf-8") != card:
            store.write_text(path, card)
        paths.append(path)
    return paths


def push(cfg: Config) -> list[str]:
    """Uploads every trained model at hand with its card to ``<push_to_hub>-<run>``, a private repository if it is new;
    does nothing without `push_to_hub`. The token is that of the environment variable HF_TOKEN.

    Returns:
        The addresses.

    Raises:
        UploadError: there is no model, or hub or network failed; what is on disk stays as it is.
        ConfigError: HF_TOKEN is no longer set.
    """
    if not cfg.push_to_hub:
        return []
    folders, urls = [path.parent for path in write_cards(cfg)], []
    if not folders:
        raise UploadError(f"push_to_hub: no model trained with these parameters is in {cfg.results / 'runs'}")
    token = os.environ["HF_TOKEN"].strip()
    api = HfApi(token=token)
    for folder in folders:
        run = folder.parent.name
        name, how = f"{cfg.push_to_hub}-{run}", {"commit_message": f"Upload {run}"}
        # for a base model that is not on the hub, the adapter's configuration names a folder of this machine
        local = _is_adapter(folder) and base_on_hub(cfg) is None
        try:
            url = str(api.create_repo(name, private=True, exist_ok=True))
            only = {"allow_patterns": list(UPLOADED), "ignore_patterns": [ADAPTER] * local}  # the client adds to them
            api.upload_folder(repo_id=name, folder_path=folder, **only, **how)
            if local:
                content = store.read_json(folder / ADAPTER) | {"base_model_name_or_path": None}
                file = json.dumps(content, indent=1).encode()
                api.upload_file(repo_id=name, path_or_fileobj=file, path_in_repo=ADAPTER, **how)
        except Exception as error:  # the client's own errors, and those of the libraries below it
            reason = " ".join(f"{type(error).__name__}: {error}".split()).replace(token, "...")
            raise UploadError(
                f"the upload to {name} failed; {len(urls)} of {len(folders)} models are uploaded, nothing is lost. "
                f"Once this is mended, the same command again uploads: {reason}"
            ) from None
        urls.append(url)
        print(f"uploaded {url}", flush=True)
    return urls


def base_on_hub(cfg: Config) -> str | None:
    """The hub id of the base model; None for the miniature, for a folder, and for a model after a warm-up of ours."""
    own = cfg.model == "miniature" or cfg.model_content or cfg.sft_steps
    return None if own else cfg.model


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).exists()


def _metadata(accuracy: dict[str, dict[str, float]]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=SETS[name].hub if name in SETS else name,
            dataset_name=name,
            metric_type="accuracy",
            metric_name=f"accuracy, attempt {k}",
            metric_value=scores[f"acc_t{k}"],
        )
        for name, scores in accuracy.items()
        for k in (1, 2)
    ]


def _results(cfg: Config, ours: dict, base: dict, summary: dict | None) -> pd.DataFrame:
    rows = [row for row in (summary or {"rows": []})["rows"] if row["arm"] == cfg.arm]
    problems = {row["benchmark"]: row["n"] for row in rows}
    return pd.DataFrame(
        {
            "benchmark": name,
            "problems": problems.get(name, ""),
            "attempt 1": report.percent(ours[name]["acc_t1"]),
            "attempt 2": report.percent(ours[name]["acc_t2"]),
            "base model, attempt 1": report.percent(base[name]["acc_t1"]),
            "base model, attempt 2": report.percent(base[name]["acc_t2"]),
        }
        for name in cfg.benchmarks
    )
