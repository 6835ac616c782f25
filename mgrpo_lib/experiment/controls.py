"""Controls and samples: is it the draft that helps, the phrase, or just more tokens?

The base model is tested alone, then all arms of a seed together. A control is a greedy second attempt as in
`mgrpo_lib.experiment.evaluate`; only what it sees differs:

- ``no_draft``: question and phrase, without a draft;
- ``other_draft``: the draft of another problem of the same set, which tells nothing;
- ``drafts_of_<arm>``: another arm's draft of the same problem (cross-refinement);
- ``phrase_2`` ...: the own draft and another guiding phrase;
- ``batch_1``, ``batch_2``: both attempts once more, with another batch size.

The last two are asked of the first `probe_problems` of each set alone.
"""

import random
import time

import torch

from mgrpo_lib.experiment.evaluate import Evaluator, all_problems, evaluate, validate
from mgrpo_lib.experiment.keys import controls_key, evaluation_key, group_name, run_key, tested_together
from mgrpo_lib.experiment.progress import Progress
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.store import finished, read_records, write_records
from mgrpo_lib.method.prompts import PHRASES


def examine(cfg: Config) -> dict:
    """Evaluate, sample and control the base model (arm ``base``), or every arm of a seed; finished parts are reused.

    Returns:
        The manifest of the controls, whose records go to ``controls/<base or seed>.jsonl.gz``.
    """
    runs = tested_together(cfg)
    progress = Progress(cfg.results / "progress" / f"05_{group_name(cfg)}.json", 2 * len(runs) + 1)
    for i, run in enumerate(runs):
        validate(run)  # by the same code as the test
        scores = evaluate(run)["accuracy"]
        note = ", ".join(f"{name} {s['acc_t1']:.0%} then {s['acc_t2']:.0%}" for name, s in scores.items())
        progress.update(2 * i + 1, f"{run.run_name} {note}")
        sample(run)
        progress.update(2 * i + 2, f"{run.run_name} sampled")
    done = controls(cfg)
    progress.update(progress.total, "controls")
    return done


def sample(cfg: Config) -> dict | None:
    """Sample both attempts `samples` times at temperature 1, for pass@k and maj@k; None if the profile asks for none.

    Returns:
        The manifest. A record of ``samples/<run>.jsonl.gz`` is one of the first `probe_problems` of a test set, with
        ``answer_k, correct_k, tokens_k, truncated_k``: lists of one entry a sample.
    """
    manifest, key = cfg.manifest("samples"), evaluation_key(cfg)
    if cfg.samples == 0:
        return None
    if done := finished(manifest, key):
        return done
    start, evaluator, problems = time.monotonic(), Evaluator.load(cfg), probe(cfg, all_problems(cfg))
    copies = [problem for problem in problems for _ in range(cfg.samples)]
    torch.manual_seed(int(run_key(cfg), 16) % 2**32)  # other samples for every model, the same if repeated
    grades = [evaluator.grade(copies, ids) for ids in evaluator.both_attempts(copies, temperature=1.0)]
    records = []
    for i, problem in enumerate(problems):
        record = {"benchmark": problem["benchmark"], "id": problem["id"]}
        for k, graded in enumerate(grades, 1):
            own = graded[i * cfg.samples : (i + 1) * cfg.samples]
            for field in ("answer", "correct", "tokens", "truncated"):
                record[f"{field}_{k}"] = [grade[field] for grade in own]
        records.append(record)
    seconds = round(time.monotonic() - start, 1)
    return write_records(manifest, key, records, arm=cfg.arm, temperature=1.0, seconds=seconds)


def probe(cfg: Config, problems: list[dict]) -> list[dict]:
    """Return the first `probe_problems` of each test set."""
    return [p for name in cfg.benchmarks for p in [q for q in problems if q["benchmark"] == name][: cfg.probe_problems]]


def controls(cfg: Config) -> dict:
    """Run the controls of the profile's `control_arms`: of the base model alone, or of the arms of a seed.

    With the arms, the base model corrects their drafts too.

    Returns:
        The manifest. A record is one second attempt: ``benchmark, id, arm`` (who corrects), ``condition`` (see above),
        ``text, answer, correct, tokens, truncated``.
    """
    manifest, key = cfg.results / "controls" / f"{group_name(cfg)}.json", controls_key(cfg)
    if done := finished(manifest, key):
        return done
    start, problems, records = time.monotonic(), all_problems(cfg), []
    arms = [arm for arm in cfg.control_arms if arm == "base" or cfg.arm != "base"]
    drafts = {arm: read_drafts(cfg.of_arm(arm)) for arm in arms}
    for arm in arms:
        evaluator, own = Evaluator.load(cfg.of_arm(arm)), drafts[arm]
        others = {f"drafts_of_{other}": drafts[other] for other in arms if other != arm}
        if arm == "base" and cfg.arm != "base":  # its own controls were run with the base model
            records += corrected(evaluator, problems, others)
            continue
        shown = {"no_draft": [[] for _ in own], "other_draft": rotated(problems, own)}
        records += corrected(evaluator, problems, shown | others)
        by_id = {problem["id"]: ids for problem, ids in zip(problems, own, strict=True)}
        records += probed(evaluator, probe(cfg, problems), by_id)
    return write_records(manifest, key, records, arms=arms, seconds=round(time.monotonic() - start, 1))


def read_drafts(run: Config) -> list[list[int]]:
    """Read the first attempts of a run as token ids, in the order of its problems."""
    manifest = run.manifest("records")
    return [record["ids_1"] for record in read_records(manifest, evaluation_key(run))]


def rotated(problems: list[dict], drafts: list[list[int]]) -> list[list[int]]:
    """Give each problem the draft of another problem of the same test set, every draft used once."""
    out: list[list[int]] = [[] for _ in drafts]
    for name in dict.fromkeys(problem["benchmark"] for problem in problems):
        rows = [i for i, problem in enumerate(problems) if problem["benchmark"] == name]
        random.Random(name).shuffle(rows)
        for i, j in zip(rows, rows[1:] + rows[:1], strict=True):
            out[i] = drafts[j]
    return out


def corrected(evaluator: Evaluator, problems: list[dict], shown: dict[str, list[list[int]]]) -> list[dict]:
    """Record second attempts at every problem under each condition, given the drafts it shows.

    All conditions are generated in one call, since many show the same draft.
    """
    prompts, n = evaluator.questions(problems), len(problems)
    completions = evaluator.attempt(
        [ids for drafts in shown.values() for ids in evaluator.corrections(prompts, drafts)]
    )
    records = []
    for i, condition in enumerate(shown):
        records += _records(evaluator, problems, condition, completions[i * n : (i + 1) * n])
    return records


def probed(evaluator: Evaluator, problems: list[dict], drafts: dict[str, list[int]]) -> list[dict]:
    """Record second attempts with every other guiding phrase, and both attempts with another batch size.

    Args:
        drafts: the own first attempt of each problem, by the problem's id.
    """
    prompts, own, records = evaluator.questions(problems), [drafts[problem["id"]] for problem in problems], []
    for number in range(1, len(PHRASES) + 1):
        if number != evaluator.cfg.eval_phrase:
            completions = evaluator.attempt(evaluator.corrections(prompts, own, number))
            records += _records(evaluator, problems, f"phrase_{number}", completions)
    attempts = evaluator.both_attempts(problems, batch_size=max(1, evaluator.cfg.eval_batch_size // 4))
    for k, completions in enumerate(attempts, 1):
        records += _records(evaluator, problems, f"batch_{k}", completions)
    return records


def _records(evaluator: Evaluator, problems: list[dict], condition: str, completions: list[list[int]]) -> list[dict]:
    return [
        {"benchmark": p["benchmark"], "id": p["id"], "arm": evaluator.cfg.arm, "condition": condition, **grade}
        for p, grade in zip(problems, evaluator.grade(problems, completions), strict=True)
    ]
