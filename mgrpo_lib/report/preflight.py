"""What a preflight found, as numbers with intervals, a page and a figure (no torch)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.settings import ROOT, Config, load_config
from mgrpo_lib.report import dose, style
from mgrpo_lib.report.records import expected_key, load_attempts
from mgrpo_lib.report.statistics import accuracy_interval, estimate
from mgrpo_lib.report.tables import percent
from mgrpo_lib.report.theory import half_after
from mgrpo_lib.report.verdicts import ALPHA

Share = tuple[float, tuple[float, float]]  # a mean and its 95% interval
REFERENCE = ROOT / "results" / "dose" / "dose.json"  # the miniature's curve


# of one completion: its scores, and what they hang on. The verifier, and so the reward, reads answers in prose too
SCORES = {
    "strict": lambda one: one["correct"] and one["boxed"],
    "lenient": lambda one: one["correct"],
    "boxed": lambda one: one["boxed"],
    "answered": lambda one: one["answer"] is not None,
    "truncated": lambda one: one["truncated"],
}


def attempts(record: dict, k: int) -> list[dict]:
    """Return the sampled attempts k of a record, each as the facts of one completion."""
    names = ("answer", "correct", "truncated", "boxed")
    columns = {"boxed": [True] * len(record[f"correct_{k}"])}  # of the miniature: older records do not say
    columns |= {name: record[f"{name}_{k}"] for name in names if f"{name}_{k}" in record}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def share(rows: list[dict], value: Callable[[dict], float], samples: bool = False) -> Share | None:
    """Return the mean of a value with its interval; None of fewer than two rows. `samples`: a row's value is of several."""
    values = np.array([value(one) for one in rows], dtype=float)
    return (float(values.mean()), accuracy_interval(values, rare=samples)) if len(values) > 1 else None


def difference(values: np.ndarray) -> tuple[Share | None, float]:
    """Return the mean of paired differences with its interval, and the p-value of 0; None and 1 of fewer than two."""
    if len(values) < 2:
        return None, 1.0
    found = estimate(values)
    return (found["mean"], (found["low"], found["high"])), found["p"]


def sign(found: Share | None, p: float) -> int:
    """Return 1 for a difference shown to be positive, -1 for one shown to be negative, else 0."""
    return 0 if found is None or p >= ALPHA else 1 if found[0] > 0 else -1


def aims(complete: list[dict]) -> dict[str, Any]:
    """Say how often a second attempt is right where its answer, as text, is another than the wrong draft's.

    Corrections and second tries are counted apart. Both shares are ratios of sums over problems. Their intervals are those of the
    ratios' linear parts [Cochran 1977, section 6.3].

    Args:
        complete: records whose first draft is wrong and has an answer in a box and an end.

    Returns:
        ``changed`` is the share of corrections with another answer, ``aim`` the share of these that is right, ``aim_try`` that of
        second tries with another answer. ``aim_minus_try`` is the paired difference, ``p_aim`` its p-value. None, and 1, where
        fewer than two problems have one.
    """

    def others(one: dict, k: int) -> list[bool]:
        pairs = zip(one[f"answer_{k}"], one[f"correct_{k}"], strict=True)
        return [right for answer, right in pairs if answer not in (None, one["answer_1"][0])]

    parts = {}
    for name, k in (("aim", 2), ("aim_try", 1)):
        found = [others(one, k) for one in complete]
        counts = np.array([len(each) for each in found], dtype=float)
        if (counts > 0).sum() > 1:
            rights = np.array([sum(each) for each in found], dtype=float)
            ratio = rights.sum() / counts.sum()
            parts[name] = ratio + (rights - ratio * counts) / counts.mean()
    apart, p = difference(parts["aim"] - parts["aim_try"] if len(parts) == 2 else np.array([]))
    return {
        "changed": share(complete, lambda one: len(others(one, 2)) / len(one["answer_2"]), True),
        **{name: clipped(difference(parts[name])[0]) if name in parts else None for name in ("aim", "aim_try")},
        "aim_minus_try": apart,
        "p_aim": p,
    }


def clipped(found: Share) -> Share:
    """Return a share with its interval within 0 and 1."""
    mean, (low, high) = found
    return mean, (max(low, 0.0), min(high, 1.0))


def facts(records: list[dict]) -> dict[str, Any]:
    """Return shares with intervals, each ``(share, (low, high))``; None where fewer than two problems show it.

    ``scores`` holds, for each of `SCORES`, the share of greedy attempts 1 and 2, then of sampled attempts 1 and 2. ``fix`` is
    of the corrections of wrong first drafts: of all, and of those that were ``complete`` (an answer in a box, and an end) or
    ``unfinished``, since finishing a draft is no correction. ``dose`` is what the curve is asked about: the share of complete
    drafts. ``balance``: of all first drafts, the share that corrections fix minus the share that they break. ``second_try`` are
    other drafts of the same problems, sampled without seeing the first; ``look_minus_try`` is the paired difference, ``p_look``
    its p-value. `aims` adds how often a change is right.
    """
    wrong = [one for one in records if not one["correct_1"][0]]
    right = [one for one in records if one["correct_1"][0]]
    complete = [one for one in wrong if (draft := attempts(one, 1)[0])["boxed"] and not draft["truncated"]]
    unfinished = [one for one in wrong if one not in complete]

    def corrected(one: dict) -> float:
        return float(np.mean(one["correct_2"]))

    def tried_again(one: dict) -> float:
        return float(np.mean(one["correct_1"][1:]))

    def scores(score) -> list[Share | None]:
        greedy = [share(records, lambda one, k=k: score({"boxed": True} | one[f"greedy_{k}"])) for k in (1, 2)]
        return greedy + [
            share(records, lambda one, k=k: np.mean([score(each) for each in attempts(one, k)]), True) for k in (1, 2)
        ]

    fixes = (("fix", wrong), ("fix_complete", complete), ("fix_unfinished", unfinished))
    fixed = {name: share(of, corrected, True) for name, of in fixes}
    balance, _ = difference(np.array([corrected(one) - one["correct_1"][0] for one in records]))
    look, p_look = difference(np.array([corrected(one) - tried_again(one) for one in wrong]))
    return {
        "problems": len(records),
        "wrong_drafts": len(wrong),
        "drafts": len(records[0]["correct_1"]),
        "corrections": len(records[0]["correct_2"]),
        "scores": {name: scores(score) for name, score in SCORES.items()},
        **{f"signal_{k}": share(records, lambda one, k=k: 0 < np.mean(one[f"correct_{k}"]) < 1) for k in (1, 2)},
        **fixed,
        "dose": fixed["fix_complete"],
        "complete": len(complete),
        "unfinished": len(unfinished),
        "broken": share(right, lambda one: 1 - corrected(one), True),
        "balance": balance,
        "second_try": share(wrong, tried_again, True),
        "look_minus_try": look,
        "p_look": p_look,
        **aims(complete),
    }


def take_off(rate: tuple[float, tuple[float, float]], reference: Path = REFERENCE) -> dict[str, list[int | None]]:
    """Return the step at which the miniature would take off from a fix rate, by each theory, with its corrections of a draft.

    Returns:
        Steps for the rate, its low and its high end. None: later than `theory.NEVER`, or never.
    """
    rates, group = store.read_json(reference)["rates"], load_config("dose").num_corrections
    ends = [min(max(end, 1e-6), 1 - 1e-6) for end in (rate[0], *rate[1])]
    return {name: [half_after(end, rates[name], group, adam) for end in ends] for name, adam in dose.THEORIES.items()}


def summarise(cfg: Config) -> list[dict]:
    """Keep what is counted of a base model's greedy attempts and controls, without their texts, in ``base.jsonl.gz``.

    Returns:
        A row for each completion: ``benchmark, condition`` (see `mgrpo_lib.experiment.controls`), ``id`` of the problem,
        ``answer, correct, truncated, boxed``.
    """
    run, rows = cfg.of_arm("base"), []
    facts = ("text", "answer", "correct", "truncated")
    for row in load_attempts(run):
        for k in (1, 2):
            own = {"benchmark": row["benchmark"], "condition": f"attempt {k}", "id": row["id"]}
            rows.append(own | {name: row[f"{name}_{k}"] for name in facts})
    manifest = run.results / "controls" / "base.json"
    key = expected_key(keys.controls_key, run, manifest)
    for row in store.read_records(manifest, key):
        rows.append({name: row[name] for name in ("benchmark", "condition", "id", *facts)})
    for row in rows:
        row["boxed"] = r"\boxed" in row.pop("text") and row["answer"] is not None
    store.write_records(run.results / "base.json", key, rows)
    return rows


def greedy_table(rows: list[dict], nf4: list[dict] | None = None) -> pd.DataFrame:
    """Show greedy attempts and controls as `summarise` has them, and the attempts of the same model with NF4 weights.

    Returns:
        A row for each test set and condition. Differences are paired, of the lenient scores.
    """
    attempts: dict[tuple[str, str], list[dict]] = {}
    for row in rows + [row | {"condition": f"{row['condition']}, NF4"} for row in nf4 or []]:
        attempts.setdefault((row["benchmark"], row["condition"].replace("_", " ")), []).append(row)
    table = []
    for (benchmark, name), ones in attempts.items():
        than = "attempt 1" if name.startswith(("attempt 1", "batch 1")) or name == "attempt 2" else "attempt 2"
        other = {one["id"]: one["correct"] for one in attempts[benchmark, than]}
        minus, _ = difference(np.array([one["correct"] - other[one["id"]] for one in ones], dtype=float))
        shares = {score: share(ones, SCORES[score]) for score in ("strict", "lenient", "boxed", "truncated")}
        shares = {
            score: percent(*found) if score == "lenient" else percent(found[0]) for score, found in shares.items()
        }
        shown = {"set": benchmark, "attempt, %": name, "problems": len(ones), **shares}
        table.append(shown | {"points": "-" if name == than else f"{percent(*minus, True)} from {than}"})
    return pd.DataFrame(table).rename(columns={"truncated": "cut off"})


def figure(cfg: Config, name: str, found: dict, reference: Path = REFERENCE) -> plt.Figure:
    """Draw what second attempts do, and place the model's fix rate on the miniature's curve of take-off."""
    content = store.read_json(reference)
    drawn, axes, _ = style.panels(["What a second attempt does", "Take-off by fix rate"], 2.4)
    bars, curve = axes.values()
    shown = [("aim", -0.1, style.INK), ("aim_try", 0.1, "#949494"), ("fix", 0.9, style.INK)]
    for key, place, color in [*shown, ("second_try", 1.1, "#949494"), ("broken", 2, style.VERDICT_COLORS["refuted"])]:
        if found[key]:
            mean, (low, high) = found[key]
            bars.errorbar(place, 100 * mean, [[100 * (mean - low)], [100 * (high - mean)]], marker="o", color=color)
    labels = ["right where the\nanswer changes", "wrong drafts\nfixed", "right drafts\nbroken"]
    bars.set(xticks=range(3), xticklabels=labels, xlim=(-0.5, 2.5), ylabel="%")
    bars.set_ylim(bottom=-3)
    dose.draw_theories(curve, content, [row["dose"] for row in content["rows"]])
    for row in content["rows"]:
        for step in row[dose.LONG]["take_off"]:
            if step:
                curve.plot(100 * row["dose"], step, "o", ms=3.5, color=style.COLORS["mgrpo"])
    mean, (low, high) = found["dose"]
    curve.axvspan(100 * max(low, 1e-3), 100 * max(high, 1.1e-3), color=style.SOFT, alpha=0.6, lw=0)
    curve.axvline(100 * max(mean, 1e-3), color=style.INK, lw=1)
    curve.set(xscale="log", yscale="log", xlabel="wrong drafts fixed, %", ylabel="steps to take-off, miniature")
    dose.plain(curve.xaxis, [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50])
    dose.plain(curve.yaxis, [10, 20, 50, 100, 200, 500, 1000])
    handles = [
        style.key("correction", color=style.INK, marker="o", ls=""),
        style.key("second try, no draft", color="#949494", marker="o", ls=""),
        style.key("miniature, measured", color=style.COLORS["mgrpo"], marker="o", ls=""),
        *dose.theory_keys(),
        style.key(f"{name}, 95% interval" + ("" if mean else "; 0 at 0.1%"), color=style.INK),
    ]
    style.finish(drawn, f"Preflight of {cfg.model}, {found['problems']} problems of {name}", "", handles)
    return drawn
