"""Prose with numbers: templates filled from result files, for README, docs/, notebooks and the captions of figures."""

import re
from collections import Counter
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
import yaml

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.progress import clock
from mgrpo_lib.experiment.settings import ROOT, Config, load_config
from mgrpo_lib.method import logged
from mgrpo_lib.method.prompts import phrase_text
from mgrpo_lib.method.settings import BudgetSettings, MGRPOSettings
from mgrpo_lib.report import dose, forecast, preflight, records, style, summary, tables, typeset, verdicts, waiting
from mgrpo_lib.report.theory import NEVER

# marked places of README.md and docs/*.md: the template, and the committed experiments that fill it; none: the code does
BLOCKS = {
    "findings": ("findings", ("cpu", "dose", "smollm2", "smollm2_gpu")),
    "times": ("times", ("cpu", "smollm2", "smollm2_gpu")),
    "cpu": ("miniature", ("cpu",)),
    "ablation": ("ablation", ("ablation",)),
    "smollm2_gpu": ("llm", ("smollm2_gpu",)),
    "smollm2": ("llm", ("smollm2",)),
    "smollm2_nf4": ("nf4", ("smollm2_nf4",)),
    "dose": ("dose", ("dose",)),
    "known": ("known", ("dose", "balance", "cpu")),
    "preflights": ("preflights", ("smollm2_gpu",)),
    "cost": ("cost", ("cpu", "smollm2", "smollm2_gpu")),
    "settings": ("settings", ()),
    "metrics": ("metrics", ()),
    "problems": ("problems", ()),
    "cost_gpu": ("cost_gpu", ("smollm2_gpu", "cpu")),
}
STEP_COSTS = ("miniature", "miniature_kl", "135m")  # files of `make benchmark`


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(  # noqa: S701  it writes Markdown, not HTML
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (
        tables.percent,
        tables.points,
        tables.name_of,
        typeset.markdown,
        typeset.escaped,
        late,
        listed,
        share,
        preflight.sign,
        take_off,
        times,
    ):
        found.filters[function.__name__] = function
    found.globals |= {"dose_table": dose.table, "logged": logged, "waiting": waiting}
    found.globals |= {"preflights": forecast.committed, "known_preflights": forecast.known, "told": forecast.hypotheses}
    for function in (
        tables.variants_table,
        verdicts.at_equal_tokens,
        cost_ratio,
        example_problems,
        fixed_example,
        expected_take_off,
        greedy_table,
        measured_step,
        rounds_table,
        sampled_corrections,
        settings_table,
        stage_table,
        step_costs,
        timing,
    ):
        found.globals[function.__name__] = function
    found.globals |= {name: getattr(verdicts, name) for name in ("ALPHA", "SMALLEST_EFFECT", "CONTROLS", "in_words")}
    return found


def listed(words: list) -> str:
    """Write ``[1, 2, 3]`` as ``1, 2 and 3``."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def times(ratio: float) -> str:
    """Write ``1.257`` as ``1.3x``."""
    return f"{ratio:.1f}x"


def share(found: tuple | None, sign: bool = False) -> str:
    """Write a share with its interval, as `preflight.facts` has them; "-" for None."""
    return tables.percent(*found, sign) if found else "-"


def late(step: int | None) -> str:
    """Write a step of take-off; None: later than the theory looks."""
    return f"more than {NEVER:,}" if step is None else f"{step:,}"


def take_off(steps: list[int | None], dose: tuple) -> str:
    """Write steps of take-off, as `preflight.take_off` has them; where no draft was fixed, the earliest that is likely."""
    if dose[0] == 0:
        return f"{late(steps[2])} or more, or never"
    return f"{late(steps[0])} ({late(steps[2])} to {late(steps[1])})"


# ---------------------------------------------------------------------------------------------- templates
def render(template: str, **facts: Any) -> str:
    """Fill a template of ``templates/``, such as ``self_correction.md.j2``.

    Raises:
        jinja2.UndefinedError: the template uses a fact that is not given.
    """
    return _templates().get_template(template).render(**facts)


def self_correction(content: dict) -> str:
    """Say on which benchmarks self-correction is shown, and what speaks against it on the others."""
    return render("self_correction.md.j2", summary=content)


def captions(content: dict) -> dict[str, dict[str, str]]:
    """Return ``title`` and ``text`` of every figure that a summary has rows for."""
    text = render("captions.yaml.j2", summary=content, arms=tables.ordered_arms(content), where=style.where(content))
    return yaml.safe_load(text)


def block(place: str, *given: Config) -> str:
    """Render a block of `BLOCKS`; its committed experiments fill it if none are given.

    Raises:
        FileNotFoundError: a result file is missing.
    """
    template, profiles = BLOCKS[place]
    if not profiles:
        return render(f"{template}.md.j2")
    cfgs = given or [load_config(profile, arm="base", output_root=".") for profile in profiles]
    contents = [store.read_json(cfg.results / ("dose.json" if cfg.bases else "summary.json")) for cfg in cfgs]
    first = {"cfg": cfgs[0], "summary": contents[0]}
    if not cfgs[0].bases:
        first |= {"tables": tables.tables(contents[0]), "captions": captions(contents[0])}
    every = {cfg.profile: {"cfg": cfg, "summary": content} for cfg, content in zip(cfgs, contents, strict=True)}
    return render(f"{template}.md.j2", **first, experiments=every)


def update(root: Path = ROOT) -> list[Path]:
    """Render every block of README.md and docs/*.md; return the pages that changed."""
    changed = []
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        text = new = page.read_text(encoding="utf-8")
        for place in BLOCKS:
            marks = re.compile(rf"(<!-- {place} -->\n).*?(<!-- /{place} -->)", re.DOTALL)
            if marks.search(new):
                filled = block(place)
                new = marks.sub(lambda match, filled=filled: match[1] + filled + match[2], new)
        if new != text:
            store.write_text(page, new)
            changed.append(page)
    return changed


def is_reference(cfg: Config) -> bool:
    """Return whether the pages show this experiment: a profile of `BLOCKS` as committed, in the repository."""
    shown = {profile for _, profiles in BLOCKS.values() for profile in profiles}
    if cfg.profile not in shown or cfg.output != ROOT:
        return False
    key = keys.dose_key if cfg.bases else keys.summary_key
    return key(cfg) == key(load_config(cfg.source, arm="base"))


def write_preflight(cfg: Config, name: str, rows: list[dict], cost: str) -> Path:
    """Write the page and the figure of a preflight beside its records; return the page.

    Args:
        name: the set of problems.
        rows: the records, as `mgrpo_lib.experiment.preflight.preflight` returns them.
        cost: of a training, as `make plan` says it.
    """
    found, place = preflight.facts(rows), cfg.results / "preflight" / f"{cfg.run_name}-{name}"
    steps = preflight.take_off(found["dose"]) if found["dose"] else None
    told = {"cfg": cfg, "name": name, "found": found, "steps": steps, "cost": cost, "curve": load_config("dose")}
    page = store.write_text(place.with_suffix(".md"), render("preflight.md.j2", **told))
    if found["dose"]:
        drawn = preflight.figure(cfg, name, found)
        style.save(drawn, place.parent, place.name, "Preflight", kinds=("png",))
        plt.close(drawn)
    return page


# ---------------------------------------------------------------------------------------------- facts for templates
def example_problems() -> list[str]:
    """Return the lines of the problems that come with the example script."""
    return (ROOT / "examples" / "problems.jsonl").read_text(encoding="utf-8").splitlines()


def fixed_example(cfg: Config) -> dict[str, Any] | None:
    """Find the first wrong draft that MGRPO's first seed put right, on the benchmark where it does so most."""
    run = cfg.of_arm(verdicts.METHOD, cfg.seeds[0])
    fixed = [row for row in records.load_attempts(run) if row["correct_2"] and not row["correct_1"]]
    if not fixed:
        return None
    most = Counter(row["benchmark"] for row in fixed).most_common(1)[0][0]
    one = next(row for row in fixed if row["benchmark"] == most)
    return {**one, "run": run.run_name, "phrase": phrase_text(run.eval_phrase)}


def settings_table() -> pd.DataFrame:
    """Show every setting of `MGRPOConfig` that is not TRL's alone, as declared."""
    rows = []
    for one in (*fields(MGRPOSettings), *fields(BudgetSettings)):
        default = f"{len(one.default_factory())} texts" if one.default is MISSING else one.default
        rows.append(
            {"setting": one.name, "default": str(default), "meaning; source of the default": one.metadata["help"]}
        )
    return pd.DataFrame(rows)


def rounds_table(cfg: Config) -> pd.DataFrame | None:
    """Show MGRPO's accuracy by round of correction, on the benchmark where that changes most."""
    file = cfg.results / "rounds.json"
    if not file.exists():
        return None
    own = [row for row in store.read_json(file)["rows"] if row["arm"] == verdicts.METHOD]
    row = max(own, key=lambda row: max(row["accuracy"]) - min(row["accuracy"]))
    cells = [tables.percent(*cell) for cell in zip(row["accuracy"], row["accuracy_ci"], strict=True)]
    return pd.DataFrame([{"MGRPO on": row["benchmark"]} | {f"attempt {i}, %": cell for i, cell in enumerate(cells, 1)}])


def sampled_corrections(cfg: Config) -> list[dict[str, float]]:
    """Count what MGRPO's corrections did in training, all seeds, a row for each ``step``.

    Returns:
        ``all`` corrections, those of ``wrong`` drafts, how many ``fixed`` or ``broken`` one; ``changed``, the share with another
        answer than the draft's; ``signal``, the share of groups with right and wrong corrections.
    """
    each = cfg.prompts_per_step * cfg.drafts_per_prompt * cfg.num_corrections  # of one step
    runs = [store.read_jsonl(cfg.of_arm(verdicts.METHOD, seed).run_folder / "metrics.jsonl") for seed in cfg.seeds]
    rows = []
    for number, steps in enumerate(zip(*runs, strict=True), 1):
        mean = {
            name: sum(one[f"layer2/{name}"] for one in steps)
            for name in ("fixed", "broken", "kept", "answer_changed", "frac_reward_zero_std")
        }
        right = mean["kept"] + mean["broken"]
        counts = {"fixed": mean["fixed"], "broken": mean["broken"], "wrong": len(steps) - right}
        rows.append(
            {"step": number, "all": each * len(steps)}
            | {name: round(each * value) for name, value in counts.items()}
            | {"changed": mean["answer_changed"] / len(steps), "signal": 1 - mean["frac_reward_zero_std"] / len(steps)}
        )
    return rows


def greedy_table() -> tuple[pd.DataFrame, dict]:
    """Show the committed greedy attempts of an untrained Qwen model, its controls and NF4 weights; and its model settings."""
    dense, nf4 = (ROOT / "results" / profile for profile in ("qwen_real", "qwen_real_nf4"))
    rows = [store.read_records(file, store.read_json(file)["key"]) for file in (dense / "base.json", nf4 / "base.json")]
    return preflight.greedy_table(*rows), store.read_json(dense / "runs" / "base" / "run.json")["params"]


def expected_take_off(fix_rate: float) -> int | None:
    """Return the step at which the miniature would take off from a fix rate, by the theory with Adam; None: never."""
    return preflight.take_off((fix_rate, ()))["Adam"][0]


def cost_ratio(content: dict, cost: str) -> float:
    """Return MGRPO's cost of training over token-matched GRPO's: ``seconds``, or ``read`` prompt tokens."""

    def total(arm: str) -> float:
        own = [run for run in content["runs"].values() if run["arm"] == arm]
        return sum(run["processed_tokens"] - run["train_tokens"] if cost == "read" else run[cost] for run in own)

    return total(verdicts.METHOD) / total(verdicts.BASELINE)


def step_costs() -> dict[str, dict]:
    """Return the arms that `make benchmark` measured, by model."""
    return {name: store.read_json(ROOT / "benchmarks" / "results" / f"{name}.json")["arms"] for name in STEP_COSTS}


def measured_step() -> dict:
    """Return the step of a model of 1.5B parameters that `benchmarks/precision.py` measured beside its plan."""
    rows = store.read_json(ROOT / "benchmarks" / "results" / "precision.json")["rows"]
    return next(row for row in rows if row["case"] == "t4" and "seconds" in row)


def timing(cfg: Config) -> dict | None:
    """Return how long the pipeline of an experiment took, if that was measured with its present results."""
    file = cfg.results / "timing.json"
    took = store.read_json(file) if file.exists() else None
    content = store.read_json(cfg.results / "summary.json")
    return took if took and summary.summary_key(took["key"]) == content["key"] else None


def stage_table(took: dict) -> pd.DataFrame:
    """Show where the time of a whole pipeline went: what the runs of each notebook took together, on a core each."""
    stages: dict[str, list[float]] = {}
    for name, seconds in took["steps"].items():
        stages.setdefault(name[:2], []).append(seconds)
    titles = {path.stem[:2]: path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    total = sum(took["steps"].values())
    return pd.DataFrame(
        {
            "notebook": titles[stage],
            "runs": len(seconds),
            "time": clock(sum(seconds)),
            "share, %": round(100 * sum(seconds) / total),
        }
        for stage, seconds in sorted(stages.items())
    )
