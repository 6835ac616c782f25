"""Preflight: can MGRPO amplify anything in this base model? Drafts and corrections, sampled with the prompts of its training
and before it (a profile with `sft_steps` is warmed up first). The paper has no such check.

Of each problem G drafts are sampled at temperature 1, and H corrections of the first draft. The other G - 1 drafts are second
tries without a draft: the control that a correction has to beat.
"""

import time
from typing import Any

import torch

from mgrpo_lib.experiment import data
from mgrpo_lib.experiment.evaluate import Evaluator
from mgrpo_lib.experiment.keys import contents, key_of, run_key
from mgrpo_lib.experiment.progress import clock, say
from mgrpo_lib.experiment.settings import GENERATED, Config
from mgrpo_lib.experiment.store import finished, read_json, read_records, write_json, write_records
from mgrpo_lib.experiment.versions import CURRENT
from mgrpo_lib.method.prompts import plain_turns
from mgrpo_lib.tasks.benchmarks import TRAINING_SETS
from mgrpo_lib.tasks.decontamination import shuffled


def manifest_of(cfg: Config, name: str):
    """Return where the records of a set are."""
    return cfg.results / "preflight" / f"{cfg.run_name}-{name}.json"


def preflight_key(cfg: Config, name: str, count: int) -> str:
    """Return the key of a preflight: model, problems, prompt and groups."""
    how = cfg.num_generations, cfg.num_corrections, cfg.max_completion_length, cfg.phrase_role, cfg.eval_phrase
    return key_of("preflight", run_key(cfg), how, contents(cfg, _split(name), [name]), name, count, CURRENT.names[1])


def _split(name: str) -> str:
    return "train" if name in TRAINING_SETS else "test"


def problems(cfg: Config, name: str, count: int) -> list[dict]:
    """Return problems of a set to try a model on: of a generated one validation problems, else training ones if it has some."""
    if name in GENERATED:
        return GENERATED[name].problems(name, "validation", count)
    return shuffled(data.whole_set(cfg, name, _split(name)))[:count]


def preflight(cfg: Config, name: str, count: int) -> list[dict]:
    """Record drafts and corrections of a model on a set, in ``preflight/<run>-<set>.jsonl.gz``. Stopped, it goes on there.

    Args:
        name: a set of problems (see `problems`).
        count: problems at most.

    Returns:
        A record for each problem: ``id, gold``, for each of G drafts and H corrections ``answer, correct, tokens,
        truncated, boxed`` as lists ``..._1`` and ``..._2``, and of both greedy attempts the same as ``greedy_1``, ``greedy_2``.
    """
    manifest, key = manifest_of(cfg, name), preflight_key(cfg, name, count)
    if finished(manifest, key):
        return read_records(manifest, key)
    part, kept = manifest.with_suffix(".partial"), {"records": [], "seconds": 0.0}
    if part.exists() and (earlier := read_json(part))["key"] == key:
        kept = earlier
    records, begun = kept["records"], time.monotonic() - kept["seconds"]
    evaluator, rows = Evaluator.load(cfg), problems(cfg, name, count)
    # as many problems at a time as have drafts for a batch: what a stopped preflight did is kept, and memory stays small
    at_once = len(rows) if cfg.is_miniature else max(1, cfg.eval_batch_size // cfg.num_generations)
    say(f"preflight of {cfg.run_name} on {name}: {len(rows)} problems, {at_once} at a time, {len(records)} done before")
    evaluator.questions(rows)  # refuses what cannot be asked before hours are spent on the others
    if not cfg.is_miniature and evaluator.tokenizer.chat_template == plain_turns(evaluator.tokenizer):
        say(
            f"note: {cfg.model} has no chat template, so its prompts are plain turns; if it is a chat model, set chat_template "
            "in its tokenizer_config.json"
        )
    for first in range(len(records), len(rows), at_once):
        asked = rows[first : first + at_once]
        torch.manual_seed((int(key, 16) + first) % 2**32)
        found = sampled(evaluator, asked, cfg.num_generations, cfg.num_corrections)
        greedy = [evaluator.grade(asked, ids) for ids in evaluator.both_attempts(asked)]
        for record, *both in zip(found, *greedy, strict=True):
            record |= {f"greedy_{k}": _facts(grade) for k, grade in enumerate(both, 1)}
        records += found
        gone = time.monotonic() - begun
        write_json(part, {"key": key, "seconds": gone, "records": records})
        each, to_go = gone / len(records), clock(gone * (len(rows) / len(records) - 1))
        say(f"{len(records)} of {len(rows)} problems, {each:.2g} s each, {to_go} to go")
    dtype, seconds = str(evaluator.model.dtype).removeprefix("torch."), round(time.monotonic() - begun, 1)
    write_records(manifest, key, records, problems=len(rows), dtype=dtype, seconds=seconds)
    part.unlink(missing_ok=True)
    return records


def sampled(evaluator: Evaluator, rows: list[dict], drafts: int, corrections: int) -> list[dict]:
    """Sample drafts of each problem, and corrections of the first one, at temperature 1.

    Returns:
        See `preflight`.
    """
    prompts = evaluator.questions(rows)
    first = evaluator.attempt([ids for ids in prompts for _ in range(drafts)], temperature=1.0)
    shown = evaluator.corrections(prompts, first[::drafts])
    second = evaluator.attempt([ids for ids in shown for _ in range(corrections)], temperature=1.0)
    records: list[dict[str, Any]] = [{"id": row["id"], "gold": row["answer"]} for row in rows]
    for k, (completions, each) in enumerate([(first, drafts), (second, corrections)], 1):
        grades = evaluator.grade([row for row in rows for _ in range(each)], completions)
        for i, record in enumerate(records):
            own = [_facts(grade) for grade in grades[i * each : (i + 1) * each]]
            record |= {f"{field}_{k}": [facts[field] for facts in own] for field in own[0]}
    return records


def _facts(grade: dict) -> dict:
    in_box = grade["answer"] is not None and r"\boxed" in grade["text"]  # the verifier also reads answers in prose
    return {field: grade[field] for field in ("answer", "correct", "tokens", "truncated")} | {"boxed": in_box}


def fix_rate(records: list[dict]) -> float:
    """Return the share of corrections of wrong first drafts that are right; NaN if no draft is wrong."""
    fixed = [right for record in records if not record["correct_1"][0] for right in record["correct_2"]]
    return sum(fixed) / len(fixed) if fixed else float("nan")
