"""Prose with numbers: templates filled from result files, for README's blocks, notebooks and the captions of figures."""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from mgrpo_lib.experiment import fingerprints, store
from mgrpo_lib.experiment.progress import clock
from mgrpo_lib.experiment.settings import ROOT, Config, load_config
from mgrpo_lib.method.prompts import phrase_text
from mgrpo_lib.report import records, style, summary, tables, verdicts

# committed experiments that README shows: the name of its place there, and the template
BLOCKS = {
    "cpu": ("results", "results"),
    "ablation": ("ablation", "ablation"),
    "smollm2_gpu": ("llm_gpu", "llm"),
    "smollm2": ("llm", "llm"),
}


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(  # noqa: S701  it writes Markdown, not HTML
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (tables.percent, tables.points, tables.name_of, tables.markdown, listed):
        found.filters[function.__name__] = function
    for function in (tables.variants_table, verdicts.at_equal_tokens):
        found.globals[function.__name__] = function
    found.globals |= {name: getattr(verdicts, name) for name in ("ALPHA", "SMALLEST_EFFECT", "CONTROLS")}
    return found


def listed(words: list) -> str:
    """Write ``[1, 2, 3]`` as ``1, 2 and 3``."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


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


def block(cfg: Config) -> str:
    """Render README's block of a committed experiment from its result files.

    Raises:
        FileNotFoundError: a result file is missing.
    """
    content, template = store.read_json(cfg.results / "summary.json"), BLOCKS[cfg.profile][1]
    facts = {"summary": content, "tables": tables.tables(content), "captions": captions(content)}
    if template == "results":
        timing, rounds = (cfg.results / f"{name}.json" for name in ("timing", "rounds"))
        took = store.read_json(timing) if timing.exists() else None
        if took and summary.fingerprint(took["key"]) != content["key"]:  # of another experiment
            took = None
        facts |= {"timing": took, "stages": took and stage_table(took), "example": fixed_example(cfg)}
        facts["rounds"] = _most_changed(store.read_json(rounds)) if rounds.exists() else None
    return render(f"{template}.md.j2", **facts)


def update_readme(cfg: Config, readme: Path = ROOT / "README.md") -> bool:
    """Put a committed experiment's results between README's markers; return whether anything changed."""
    text, place = readme.read_text(encoding="utf-8"), BLOCKS[cfg.profile][0]
    new = re.sub(
        rf"(<!-- {place} -->\n).*?(<!-- /{place} -->)", lambda m: m[1] + block(cfg) + m[2], text, flags=re.DOTALL
    )
    if new != text:
        store.write_text(readme, new)
    return new != text


def is_reference(cfg: Config) -> bool:
    """Return whether README shows this experiment: a profile of `BLOCKS` as committed, in the repository."""
    if cfg.profile not in BLOCKS or cfg.output != ROOT:
        return False
    return fingerprints.summary_key(cfg) == fingerprints.summary_key(load_config(cfg.profile, arm="base"))


def fixed_example(cfg: Config) -> dict[str, Any] | None:
    """Find the first wrong draft that MGRPO's first seed put right, on the benchmark where it does so most."""
    run = cfg.of_arm(verdicts.METHOD, cfg.seeds[0])
    manifest = run.results / "records" / f"{run.run_name}.json"
    rows = store.read_records(manifest, records.fingerprint(fingerprints.evaluation_key, run, manifest))
    fixed = [row for row in rows if row["correct_2"] and not row["correct_1"]]
    if not fixed:
        return None
    most = Counter(row["benchmark"] for row in fixed).most_common(1)[0][0]
    one = next(row for row in fixed if row["benchmark"] == most)
    return {**one, "run": run.run_name, "phrase": phrase_text(run.eval_phrase)}


def _most_changed(rounds: dict) -> dict[str, Any]:
    """Return MGRPO's accuracy by round, on the benchmark where that changes most."""
    own = [row for row in rounds["rows"] if row["arm"] == verdicts.METHOD]
    row = max(own, key=lambda row: max(row["accuracy"]) - min(row["accuracy"]))
    cells = [tables.percent(*cell) for cell in zip(row["accuracy"], row["accuracy_ci"], strict=True)]
    return {"benchmark": row["benchmark"], "cells": cells}


def stage_table(timing: dict) -> pd.DataFrame:
    """Show where the time of a whole pipeline went: what the runs of each notebook took together, on a core each."""
    stages: dict[str, list[float]] = {}
    for name, seconds in timing["steps"].items():
        stages.setdefault(name[:2], []).append(seconds)
    titles = {path.stem[:2]: path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    total = sum(timing["steps"].values())
    return pd.DataFrame(
        {
            "notebook": f"`{titles[stage]}`",
            "runs": len(seconds),
            "time": clock(sum(seconds)),
            "share, %": round(100 * sum(seconds) / total),
        }
        for stage, seconds in sorted(stages.items())
    )
