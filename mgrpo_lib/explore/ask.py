"""Ask a model a question and watch it correct itself, and measure what more rounds of that bring.

Prompts, lengths and decoding are `mgrpo_lib.experiment.evaluate.Evaluator`'s: attempts 1 and 2 are those of the experiment. Every
further round is a second attempt once more: it sees the question, the attempt before it and the guiding phrase, and
nothing of what came earlier. (An arm of three layers is trained on all of it; a model of two has never seen more than
one draft.)
"""

import time

import numpy as np
import pandas as pd
import torch

from mgrpo_lib.experiment import fingerprints, store
from mgrpo_lib.experiment.evaluate import Evaluator, all_problems, two_attempts
from mgrpo_lib.experiment.models import MINIATURE, limit_threads, load_base, load_tokenizer
from mgrpo_lib.experiment.settings import Config, load_config
from mgrpo_lib.explore.explorer import Attempts
from mgrpo_lib.method.prompts import PHRASES, phrase_text
from mgrpo_lib.report import rounds
from mgrpo_lib.report.statistics import accuracy_interval, estimate
from mgrpo_lib.report.tables import percent
from mgrpo_lib.tasks.miniature_model import shipped_base

NOT_ITS_SIGNS = (
    "the miniature reads its own signs alone: chains such as '7 a+8 b*3', their words 'seven a plus eight', and blanks such as "
    "'7 a+? b-3 =4'; {text!r} has others"
)


def load(model: str | Config = "miniature", adapter: str | None = None, **settings) -> Evaluator:
    """A model that can be asked.

    Args:
        model: ``miniature``: the base model that comes with the library, untrained; a configuration: the trained arm and
            seed of its results folder, such as ``load_config("cpu", arm="mgrpo", seed=10)``; else a hub id or a folder.
        adapter: of a hub id or folder, the folder or hub id of a LoRA adapter that goes on top of it.
        settings: of a hub id or folder, those of `mgrpo_lib.experiment.settings.Config`: ``max_completion_length`` (512 here),
            ``system_prompt``, ``phrase_role``, ``dtype``, ...

    Raises:
        FileNotFoundError: the arm is not trained, or its model is not at hand (checkpoints are not in git).
        mgrpo_lib.experiment.settings.ConfigError: neither a folder nor a model that the hub gives out, or an unknown setting.
    """
    if isinstance(model, Config):
        return Evaluator.load(model)
    if model == MINIATURE:
        cfg = load_config("cpu", arm="base", **settings)
        limit_threads(cfg)
        return Evaluator(cfg, *shipped_base(PHRASES))
    text = {"train_data": "sums", "benchmarks": ["sums"], "max_completion_length": 512}  # the data is not used
    cfg = load_config("cpu", arm="base", **{**text, **settings, "model": model})
    loaded, tokenizer = load_base(cfg, cfg.model_location), load_tokenizer(cfg, cfg.model_location)
    if adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, adapter)
    return Evaluator(cfg, loaded.eval(), tokenizer)


def answer_in_rounds(
    evaluator: Evaluator,
    problems: list[dict],
    count: int,
    phrase: int | str | None = None,
    temperature: float = 0.0,
) -> list[list[dict]]:
    """`count` attempts at each problem, each one after the first a correction of the one before it.

    Args:
        problems: with ``question`` and ``answer``.
        phrase: number of the guiding phrase (1 to 7) or a text of your own; None: as the evaluator's profile says.
        temperature: 0: greedy.

    Returns:
        (rounds, problems) of ``text, answer, correct, tokens, truncated``, as `Evaluator.grade` gives them.

    Raises:
        ValueError: fewer than one round; a question or phrase that the miniature cannot read, or one too long for the
            model's context.
    """
    if count < 1:
        raise ValueError(f"{count} rounds; ask for one or more")
    prompts = evaluator.questions(problems)
    if evaluator.cfg.template == "miniature":
        for problem, ids in zip(problems, prompts, strict=True):
            _check_signs(evaluator, problem["question"], ids)
        if isinstance(phrase, str) and phrase not in PHRASES:
            raise ValueError(f"to the miniature each of its phrases is one sign, and it knows these alone: {PHRASES}")
    completions = evaluator.attempt(prompts, temperature)
    marks = [evaluator.grade(problems, completions)]
    for _ in range(count - 1):
        completions = evaluator.attempt(evaluator.corrections(prompts, completions, phrase), temperature)
        marks.append(evaluator.grade(problems, completions))
    return marks


def _check_signs(evaluator: Evaluator, text: str, ids: list[int]) -> None:
    """Refuses what the miniature's tokenizer would turn into padding, silently."""
    if evaluator.tokenizer.pad_token_id in ids:
        raise ValueError(NOT_ITS_SIGNS.format(text=text))


def correct(
    evaluator: Evaluator,
    question: str,
    rounds: int = 2,
    gold: str | None = None,
    phrase: int | str | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Attempts:
    """A question, answered and then corrected `rounds` - 1 times; the last line of a notebook's cell shows it, and so does
    `print`.

    Args:
        gold: the right answer, for the verdicts; no attempt sees it.
        phrase, temperature: as `answer_in_rounds`.
        seed: of the sampling, if there is any.

    Raises:
        ValueError: as `answer_in_rounds`.
    """
    torch.manual_seed(seed)
    problem = {"question": question, "answer": "" if gold is None else str(gold)}
    marks = [mark for (mark,) in answer_in_rounds(evaluator, [problem], rounds, phrase, temperature)]
    if gold is None:
        marks = [{**mark, "correct": None} for mark in marks]
    return Attempts(
        question,
        marks,
        phrase_text(evaluator.cfg.eval_phrase if phrase is None else phrase),
        None if gold is None else str(gold),
    )


def compare(models: dict[str, Evaluator], problems: list[dict]) -> pd.DataFrame:
    """Both attempts of several models at the same problems, in percent, and what each differs from the first of them;
    95% intervals over the problems (models, and seeds, are taken as they are).
    """
    rows, first = [], None
    for name, evaluator in models.items():
        records = two_attempts(evaluator, problems)
        right = [np.array([record[f"correct_{k}"] for record in records], dtype=float) for k in (1, 2)]
        row = {"model": name}
        for k, own in enumerate(right, 1):
            row[f"attempt {k}, %"] = percent(own.mean(), accuracy_interval(own))
        for k, own in enumerate(right, 1):
            gain = None if first is None else estimate(own - first[k - 1])
            text = "" if gain is None else percent(gain["mean"], [gain["low"], gain["high"]], sign=True)
            row[f"attempt {k}, minus the first row's"] = text
        first = right if first is None else first
        rows.append(row)
    return pd.DataFrame(rows)


def measure_rounds(cfg: Config, count: int = rounds.ROUNDS) -> dict:
    """`count` rounds of every model of an experiment at every test problem; records go to ``rounds/<run>.jsonl.gz`` in
    the results folder, ``answer, correct, tokens, truncated`` of each with an entry for every round, and the numbers to
    ``rounds.json``. What is there already, made with these parameters and this code, is not repeated.

    Returns:
        The summary, see `mgrpo_lib.report.rounds.summarise`.

    Raises:
        FileNotFoundError: a model is not trained with these parameters, or is not at hand.
    """
    if done := rounds.finished(cfg, count):
        return done
    for run in fingerprints.all_runs(cfg):
        manifest, key = rounds.manifest_of(run), rounds.rounds_key(run, count)
        if store.finished(manifest, key):
            continue
        start, problems = time.monotonic(), all_problems(run)
        marks = answer_in_rounds(Evaluator.load(run), problems, count)
        fields = ("answer", "correct", "tokens", "truncated")
        records = [
            {"benchmark": problem["benchmark"], "id": problem["id"]}
            | {name: [mark[name] for mark in own] for name in fields}
            for problem, own in zip(problems, zip(*marks, strict=True), strict=True)
        ]
        seed, seconds = None if run.arm == "base" else run.seed, round(time.monotonic() - start, 1)
        store.write_records(manifest, key, records, arm=run.arm, seed=seed, rounds=count, seconds=seconds)
        print(f"{run.run_name}: {count} rounds at {len(problems)} problems in {seconds} s", flush=True)
    return rounds.summarise(cfg, count)
