"""What a sceptic asks of a second attempt: controls that see something else than their own draft, several samples at an
equal budget, other phrases. Models are tested together, the base model alone, then all arms of a seed.

A control is a second attempt with the greedy rules of `mgrpo_lib.experiment.evaluate`; only what stands before it differs:

- ``no_draft``: question and phrase, without a draft;
- ``other_draft``: the draft is of another problem of the same set, so it tells nothing;
- ``drafts_of_<arm>``: the draft is another arm's at the same problem (cross-refinement);
- ``phrase_2`` ...: another guiding phrase; the first attempt is the same;
- ``batch_1``, ``batch_2``: both attempts once more, with another batch size.

The last two are only asked of the first `probe_problems` of each set.
"""

import random
import time

import torch

from mgrpo_lib.experiment.evaluate import Examinee, all_problems, evaluate, validate
from mgrpo_lib.experiment.fingerprints import controls_key, evaluation_key, group_name, run_key, tested_together
from mgrpo_lib.experiment.progress import Progress
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.store import finished, read_records, write_records
from mgrpo_lib.method.prompts import PHRASES


def examine(cfg: Config) -> dict:
    """Everything that is asked of the base model (arm ``base``), or of every arm of a seed: both attempts
    (`mgrpo_lib.experiment.evaluate.evaluate`), samples, controls. What is there already is not repeated.

    Returns:
        The manifest of the controls, whose records go to ``controls/<base or seed>.jsonl.gz``.
    """
    runs = tested_together(cfg)
    progress = Progress(cfg.results / "progress" / f"05_{group_name(cfg)}.json", 2 * len(runs) + 1)
    for i, run in enumerate(runs):
        validate(run)  # by the same code as the test
        scores = evaluate(run)["accuracy"]
        note = ", ".join(f"{name} {100 * s['acc_t1']:.0f}/{100 * s['acc_t2']:.0f}" for name, s in scores.items())
        progress.update(2 * i + 1, f"{run.run_name} {note}")
        sample(run)
        progress.update(2 * i + 2, f"{run.run_name} sampled")
    done = controls(cfg)
    progress.update(progress.total, "controls")
    return done


# ---------------------------------------------------------------------------------------------- samples
def sample(cfg: Config) -> dict | None:
    """`samples` chains of two attempts at each of the first `probe_problems` of every test set, at temperature 1, for
    pass@k and maj@k; None if the profile asks for none.

    Returns:
        The manifest; a record of ``samples/<run>.jsonl.gz`` holds a problem's ``answer_k, correct_k, tokens_k,
        truncated_k``, lists of one entry a sample.
    """
    manifest, key = cfg.results / "samples" / f"{cfg.run_name}.json", evaluation_key(cfg)
    if cfg.samples == 0:
        return None
    if done := finished(manifest, key):
        return done
    start, examinee, problems = time.monotonic(), Examinee.load(cfg), probe(cfg, all_problems(cfg))
    copies = [problem for problem in problems for _ in range(cfg.samples)]
    torch.manual_seed(int(run_key(cfg), 16) % 2**32)  # other samples for every model, the same if repeated
    prompts = examinee.questions(copies)
    first = examinee.attempt(prompts, temperature=1.0)
    second = examinee.attempt(examinee.corrections(prompts, first), temperature=1.0)
    marks = [examinee.mark(copies, completions) for completions in (first, second)]
    records = []
    for i, problem in enumerate(problems):
        own = slice(i * cfg.samples, (i + 1) * cfg.samples)
        record = {"benchmark": problem["benchmark"], "id": problem["id"]}
        for k, mark in enumerate(marks, start=1):
            for field in ("answer", "correct", "tokens", "truncated"):
                record[f"{field}_{k}"] = [m[field] for m in mark[own]]
        records.append(record)
    seconds = round(time.monotonic() - start, 1)
    return write_records(manifest, key, records, arm=cfg.arm, temperature=1.0, seconds=seconds)


def probe(cfg: Config, problems: list[dict]) -> list[dict]:
    """The first `probe_problems` of each test set."""
    return [p for name in cfg.benchmarks for p in [q for q in problems if q["benchmark"] == name][: cfg.probe_problems]]


# ---------------------------------------------------------------------------------------------- controls
def controls(cfg: Config) -> dict:
    """The controls of the profile's `control_arms`: of the base model alone, or of the arms of a seed, the base model's
    corrections of their drafts among them.

    Returns:
        The manifest. A record is one second attempt: ``benchmark, id, arm`` (who corrects), ``condition`` (see above),
        ``text, answer, correct, tokens, truncated``.
    """
    manifest, key = cfg.results / "controls" / f"{group_name(cfg)}.json", controls_key(cfg)
    if done := finished(manifest, key):
        return done
    start, problems, records = time.monotonic(), all_problems(cfg), []
    arms = [arm for arm in cfg.control_arms if arm == "base" or cfg.arm != "base"]
    chains = {arm: read_chain(cfg.of_arm(arm)) for arm in arms}
    for arm in arms:
        examinee = Examinee.load(cfg.of_arm(arm))
        others = {f"drafts_of_{other}": chains[other] for other in arms if other != arm}
        if arm == "base" and cfg.arm != "base":  # its own controls are with the base model
            records += corrected(examinee, problems, others)
            continue
        own = chains[arm]
        shown = {"no_draft": [[] for _ in own], "other_draft": rotated(problems, own)}
        records += corrected(examinee, problems, {**shown, **others})
        records += probed(examinee, probe(cfg, problems), dict(zip((p["id"] for p in problems), own, strict=True)))
    seconds = round(time.monotonic() - start, 1)
    return write_records(manifest, key, records, arms=arms, seconds=seconds)


def read_chain(run: Config) -> list[list[int]]:
    """The first attempts of a run as tokens, in the order of its problems."""
    manifest = run.results / "records" / f"{run.run_name}.json"
    return [record["ids_1"] for record in read_records(manifest, evaluation_key(run))]


def rotated(problems: list[dict], drafts: list[list[int]]) -> list[list[int]]:
    """For each problem the draft of another problem of the same test set, every draft used once."""
    out: list[list[int]] = [[] for _ in drafts]
    for name in dict.fromkeys(problem["benchmark"] for problem in problems):
        rows = [i for i, problem in enumerate(problems) if problem["benchmark"] == name]
        random.Random(name).shuffle(rows)
        for i, j in zip(rows, rows[1:] + rows[:1], strict=True):
            out[i] = drafts[j]
    return out


def corrected(examinee: Examinee, problems: list[dict], shown: dict[str, list[list[int]]]) -> list[dict]:
    """Second attempts at every problem under each condition, by the drafts that it shows: all in one go, since many are
    shown the same draft.
    """
    prompts, n = examinee.questions(problems), len(problems)
    seen = [ids for drafts in shown.values() for ids in examinee.corrections(prompts, drafts)]
    completions = examinee.attempt(seen)
    return [
        record
        for i, condition in enumerate(shown)
        for record in _records(examinee, problems, condition, completions[i * n : (i + 1) * n])
    ]


def probed(examinee: Examinee, problems: list[dict], drafts: dict[str, list[int]]) -> list[dict]:
    """Second attempts with every other guiding phrase, and both attempts with another batch size."""
    prompts, own, records = examinee.questions(problems), [drafts[problem["id"]] for problem in problems], []
    for number in range(1, len(PHRASES) + 1):
        if number != examinee.cfg.eval_phrase:
            completions = examinee.attempt(examinee.corrections(prompts, own, number))
            records += _records(examinee, problems, f"phrase_{number}", completions)
    size = max(1, examinee.cfg.eval_batch_size // 4)
    first = examinee.attempt(prompts, batch_size=size)
    second = examinee.attempt(examinee.corrections(prompts, first), batch_size=size)
    return records + _records(examinee, problems, "batch_1", first) + _records(examinee, problems, "batch_2", second)


def _records(examinee: Examinee, problems: list[dict], condition: str, completions: list[list[int]]) -> list[dict]:
    place = {"arm": examinee.cfg.arm, "condition": condition}
    return [
        {"benchmark": p["benchmark"], "id": p["id"], **place, **mark}
        for p, mark in zip(problems, examinee.mark(problems, completions), strict=True)
    ]
