"""Ask a model a question, watch it correct itself, and measure what more rounds bring.

Prompts, lengths and decoding are the evaluation's: attempts 1 and 2 are those of the experiment. A further round sees
the question, the attempt before it and the guiding phrase, and nothing earlier.
"""

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.evaluate import Evaluator, all_problems, two_attempts
from mgrpo_lib.experiment.models import limit_threads, load_base, load_tokenizer
from mgrpo_lib.experiment.profiles import KINDS
from mgrpo_lib.experiment.settings import OUT, ROOT, Config, ConfigError, from_repository, load_config
from mgrpo_lib.explore.explorer import Attempts
from mgrpo_lib.method.prompts import PHRASES, phrase_text, text_problem
from mgrpo_lib.report import rounds
from mgrpo_lib.report.statistics import accuracy_interval, estimate
from mgrpo_lib.report.tables import percent
from mgrpo_lib.tasks import miniature
from mgrpo_lib.tasks.miniature_model import make_tokenizer

# A validation problem: nothing is trained or tested on it. The shipped model's first attempt is wrong, its second right
EXAMPLE = {"question": "1 a+2 b+? =1", "answer": "8"}


def load(model: str | Path | Config = "cpu", adapter: str | None = None, **settings) -> Evaluator:
    """Load a model that can be asked.

    Args:
        model: a profile or its file, for its trained MGRPO model (that of ``cpu`` comes with the repository); ``base``, for
            the untrained miniature; the folder of a run (``results/<profile>/runs/<run>``); a hub id, or a folder with a
            language model; or a configuration, for its trained arm and seed.
        adapter: folder or hub id of a LoRA adapter for a language model.
        settings: of `mgrpo_lib.experiment.settings.Config`, for any model but a configuration: ``system_prompt``,
            ``phrase_role``, ``dtype``, ``max_completion_length`` (512 for a language model), ``load_in_4bit`` with the
            ``lora_rank`` of its adapter, ...

    Raises:
        FileNotFoundError: the run is not trained, or its model is not here (only one checkpoint is in git).
        mgrpo_lib.experiment.settings.ConfigError: no such model, or an unknown setting.
    """
    if isinstance(model, Config):
        alone = model.is_miniature and not model.lora_rank and keys.finished_run(model)
        return _miniature(model, model.run_folder / "model") if alone else Evaluator.load(model)
    if Path(model).suffix in KINDS:
        cfg = load_config(str(model), **settings)
        return load(cfg.of_arm(cfg.arm, cfg.seeds[0]))
    name, runs = str(model), trained_runs()
    if name == "base":
        return _miniature(load_config("cpu", arm="base", **settings), miniature.SHIPPED)
    own = [run for run in runs if run.name.startswith("mgrpo-seed") and run.parts[-3] == name]
    folder = own[0] if own else from_repository(name)
    if (folder / "run.json").exists():
        return _of_run(folder, settings)
    if "/" not in name and not folder.is_dir():
        here = ["base", *dict.fromkeys(run.parts[-3] for run in runs), *(str(run.relative_to(ROOT)) for run in runs)]
        raise ConfigError(
            f"there is no model {name!r}; give one of {', '.join(here)}, a folder, or a hub id (owner/name)"
        )
    text = {"train_data": "sums", "benchmarks": ["sums"], "max_completion_length": 512}  # the data is not used
    cfg = load_config("cpu", arm="base", **{**text, **settings, "model": name})
    location = cfg.model_location
    loaded, tokenizer = load_base(cfg, location, cfg.load_in_4bit), load_tokenizer(cfg, location)
    if adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, adapter)
    return Evaluator(cfg, loaded.eval(), tokenizer)


def trained_runs() -> list[Path]:
    """Return the folders of the runs whose model is here: the committed one, then those that ``make reproduce`` left."""
    return [model.parent for root in (ROOT, ROOT / OUT) for model in sorted(root.glob("results/*/runs/*/model"))]


def _of_run(folder: Path, settings: dict) -> Evaluator:
    """Load the model of a finished run, with the lengths that it was trained with."""
    made, profile, output = store.read_json(folder / "run.json"), folder.parts[-3], folder.parents[3]
    if not (folder / "model").is_dir():
        raise FileNotFoundError(
            f"{folder} holds no model: git has the numbers of this run alone; make reproduce PROFILE={profile} trains it. "
            f"Models are here: {', '.join(str(run.relative_to(ROOT)) for run in trained_runs())}"
        )
    params = made["params"]
    if params["model"] != "miniature" or params.get("lora_rank"):  # it takes the base model, too
        own = {"arm": made["arm"], "seed": made["seed"], "output_root": str(output)}
        return Evaluator.load(load_config(profile, **own, **settings))
    length = {name: params[name] for name in ["max_completion_length"] if name in params}
    return _miniature(load_config("cpu", arm="base", **{**length, **settings}), folder / "model")


def _miniature(cfg: Config, weights: Path) -> Evaluator:
    """Load a miniature from its weights alone: its tokenizer is made, and the base model need not be here."""
    limit_threads(cfg)
    return Evaluator(cfg, load_base(cfg, str(weights)).eval(), make_tokenizer(PHRASES))


def is_problem(question: str) -> bool:
    """True if a question is a chain or a blank as the miniature writes them, whatever its white space.

    >>> is_problem("7 a+8 b*3"), is_problem("seven a plus eight"), is_problem("1 a+2 b+? =1"), is_problem("1 a+2 b+?")
    (True, True, True, False)
    """
    plain = miniature.bare(question)
    # no blank of the training has a product: several digits could fit it, or none
    known = r"\d([-+]\d){1,5}=\d" if "?" in plain else r"\d([-+*]\d){1,5}"
    if not re.fullmatch(known, plain.replace("?", "0", 1)):
        return False
    chain, equals, target = plain.partition("=")
    written = miniature.labelled(chain) + equals + target
    in_words = not equals and question.split() == miniature.in_words(written).split()
    return in_words or "".join(question.split()) == "".join(written.split())


def solution(question: str) -> str:
    """Work out a problem of the miniature: the value of a chain, or the digit that fits a blank.

    >>> solution("7 a+8 b*3"), solution("1 a+2 b+? =1")
    ('5', '8')
    """
    chain, equals, target = miniature.bare(question).partition("=")
    values = [str(miniature.worked(chain.replace("?", digit))[1]) for digit in "0123456789"]
    return str(values.index(target)) if equals else values[0]


def answer_in_rounds(
    model: Evaluator,
    problems: list[dict],
    count: int,
    phrase: int | str | None = None,
    temperature: float = 0.0,
) -> list[list[dict]]:
    """Make `count` attempts at each problem; each after the first corrects the one before it.

    Args:
        problems: with ``question`` and ``answer``.
        phrase: number of the guiding phrase (1 to 7) or a text; None: the setting ``eval_phrase``.
        temperature: 0: greedy.

    Returns:
        (rounds, problems) of ``text, answer, correct, tokens, truncated``, as `Evaluator.grade` gives them.

    Raises:
        ValueError: fewer than one round, a question that is no problem of the miniature, a phrase that it does not know,
            or one too long for the model's context.
    """
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"rounds is {count!r}; give a whole number from 1 on")
    if isinstance(phrase, str) and (found := text_problem("phrase", phrase)):
        raise ValueError("; ".join(found))
    if model.cfg.is_miniature:
        for problem in problems:
            question, gold = problem["question"], problem["answer"]
            if not is_problem(question):
                chain, equals, target = miniature.bare(question).partition("=")
                near = f"{miniature.labelled(chain)} {equals}{target}".strip() if chain else ""
                raise ValueError(
                    f"the miniature cannot read {question!r}; it reads chains of 2 to 6 digits such as '7 a+8 b*3' "
                    f"or 'seven a plus eight', and blanks of plus and minus with a target such as {EXAMPLE['question']!r}"
                    + (f"; write {near!r}" if is_problem(near) else "")
                )
            if gold and gold != solution(question):
                raise ValueError(f"gold={gold!r} is no answer of {question!r}; leave gold out: it is worked out")
        if isinstance(phrase, str) and phrase not in PHRASES:
            raise ValueError(f"the miniature does not know the phrase {phrase!r}; its phrases are {PHRASES}")
    prompts = model.questions(problems)
    completions = model.attempt(prompts, temperature)
    rounds_made = [model.grade(problems, completions)]
    for _ in range(count - 1):
        completions = model.attempt(model.corrections(prompts, completions, phrase), temperature)
        rounds_made.append(model.grade(problems, completions))
    return rounds_made


def correct(
    model: Evaluator,
    question: str | None = None,
    rounds: int = 2,
    gold: str | None = None,
    phrase: int | str | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Attempts:
    """Answer a question, and correct the answer `rounds` - 1 times.

    Args:
        question: None: `EXAMPLE`, a validation problem of the miniature, with its answer as `gold`.
        gold: the right answer, for the verdicts alone; no attempt sees it. None: worked out for the miniature.
        phrase, temperature: as in `answer_in_rounds`.
        seed: of the sampling.

    Raises:
        ValueError: no loaded model; or as `answer_in_rounds`.
    """
    if not isinstance(model, Evaluator):
        raise ValueError(f"{model!r} is no loaded model; give what load() returns, such as load({model!r})")
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature!r}; give 0 (greedy) or more")
    torch.manual_seed(seed)
    if question is None:
        question, gold = EXAMPLE["question"], EXAMPLE["answer"]
    question, gold = str(question), None if gold is None else str(gold)
    if gold is None and model.cfg.is_miniature and is_problem(question):
        gold = solution(question)
    made = answer_in_rounds(model, [{"question": question, "answer": gold or ""}], rounds, phrase, temperature)
    attempts = [attempt if gold is not None else {**attempt, "correct": None} for (attempt,) in made]
    return Attempts(question, attempts, phrase_text(model.cfg.eval_phrase if phrase is None else phrase), gold)


def compare(models: dict[str, Evaluator], problems: list[dict]) -> pd.DataFrame:
    """Compare both attempts of several models at the same problems, in percent, with the first model as baseline.

    The 95% intervals are over problems; they say nothing about other training seeds.

    Raises:
        ValueError: fewer than two problems.
    """
    if len(problems) < 2:
        raise ValueError(f"problems holds {len(problems)}, and models are compared on several; give two or more")
    return compare_records({name: two_attempts(model, problems) for name, model in models.items()})


def compare_records(records_of: dict[str, list[dict]]) -> pd.DataFrame:
    """Compare models as `compare` does, from the records that `two_attempts` made of the same two or more problems."""
    rows, first = [], None
    for name, records in records_of.items():
        right = {k: np.array([record[f"correct_{k}"] for record in records], dtype=float) for k in (1, 2)}
        row = {"model": name} | {f"attempt {k}, %": percent(x.mean(), accuracy_interval(x)) for k, x in right.items()}
        for k, own in right.items():
            gain = None if first is None else estimate(own - first[k])
            text = "" if gain is None else percent(gain["mean"], [gain["low"], gain["high"]], sign=True)
            row[f"attempt {k}, minus the first row's"] = text
        first = first or right
        rows.append(row)
    return pd.DataFrame(rows)


def measure_rounds(cfg: Config, count: int = rounds.ROUNDS) -> dict:
    """Measure `count` rounds of every model of an experiment at every test problem.

    Records go to ``rounds/<run>.jsonl.gz`` in the results folder, numbers to ``rounds.json``. What is there already,
    made with these parameters, is not repeated.

    Returns:
        The summary, see `mgrpo_lib.report.rounds.summarise`.

    Raises:
        FileNotFoundError: a model is not trained with these parameters, or is not here.
    """
    if done := rounds.finished(cfg, count):
        return done
    for run in keys.all_runs(cfg):
        manifest, key = run.manifest("rounds"), rounds.rounds_key(run, count)
        if store.finished(manifest, key):
            continue
        start, problems = time.monotonic(), all_problems(run)
        made = answer_in_rounds(Evaluator.load(run), problems, count)
        records = [
            {"benchmark": problem["benchmark"], "id": problem["id"]}
            | {name: [one[name] for one in own] for name in ("answer", "correct", "tokens", "truncated")}
            for problem, own in zip(problems, zip(*made, strict=True), strict=True)
        ]
        seed, seconds = None if run.arm == "base" else run.seed, round(time.monotonic() - start, 1)
        store.write_records(manifest, key, records, arm=run.arm, seed=seed, rounds=count, seconds=seconds)
        print(f"{run.run_name}: {count} rounds at {len(problems)} problems in {seconds} s", flush=True)
    return rounds.summarise(cfg, count)
