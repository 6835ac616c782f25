"""Verdicts on the hypotheses of ANALYSIS.md, controls, equal budgets and robustness. Shares are fractions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein

from mgrpo_lib.method.prompts import PHRASES
from mgrpo_lib.report.records import Records
from mgrpo_lib.report.statistics import (
    accuracy_interval,
    estimate,
    holm,
    maj_at_k,
    mcnemar,
    minimum_detectable_effect,
    pass_at_k,
    problems_to_decide,
    seeds_to_decide,
)

ALPHA = 0.05
SMALLEST_EFFECT = 0.02  # smaller ones are of no interest
NO_GAIN = f"no gain of {100 * SMALLEST_EFFECT:.0f} points or more"
METHOD, BASELINE = "mgrpo", "grpo_matched"
HYPOTHESES = {
    "H1": "MGRPO's first attempts are better than the matched GRPO's",
    "H2": "MGRPO's second attempts are better than the matched GRPO's",
    "H3": "MGRPO's second attempts are better than its first",
    "H4": "MGRPO breaks fewer right answers than the matched GRPO",
}
CONTROLS = {
    "no_draft": "question and phrase, no draft",
    "other_draft": "the draft of another problem",
    "resample": "a sampled first attempt",
    "untrained, GRPO": "matched GRPO corrects MGRPO's drafts",
    "untrained, base": "the base model corrects MGRPO's drafts",
}
# the comparisons that are adjusted together; both untrained correctors are one control
FAMILIES = [("no_draft",), ("other_draft",), ("resample",), ("untrained, GRPO", "untrained, base")]


# ---------------------------------------------------------------------------------------------- verdicts
def hypotheses(records: Records) -> list[dict[str, Any]]:
    """Test every hypothesis on every benchmark: quantity, interval, adjusted p, verdict.

    Empty where the profile does not name both arms as `control_arms`, and so is exploratory.
    """
    if not {METHOD, BASELINE} <= set(records.cfg.control_arms):
        return []

    def right(arm: str, benchmark: str, attempt: int) -> np.ndarray:
        return records.chain(arm, benchmark, f"correct_{attempt}").astype(float)

    def broken(arm: str, benchmark: str) -> np.ndarray:
        return (right(arm, benchmark, 1) == 1) & (right(arm, benchmark, 2) == 0)

    quantities: dict[str, Callable[[str], np.ndarray]] = {
        "H1": lambda b: right(METHOD, b, 1) - right(BASELINE, b, 1),
        "H2": lambda b: right(METHOD, b, 2) - right(BASELINE, b, 2),
        "H3": lambda b: right(METHOD, b, 2) - right(METHOD, b, 1),
        "H4": lambda b: broken(BASELINE, b) * 1.0 - broken(METHOD, b),
    }
    rows = []
    for name, quantity in quantities.items():
        values = {benchmark: quantity(benchmark) for benchmark in records.cfg.benchmarks}
        rows += [{"hypothesis": name, "benchmark": b, **found} for b, found in tested(values).items()]
    return rows


def tested(values: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Return means with intervals, p-values adjusted over the entries (Holm), verdicts, and what would decide."""
    found = {name: estimate(array) for name, array in values.items()}
    adjusted = holm({name: one["p"] for name, one in found.items()})
    out = {}
    for name, one in found.items():
        low, high = one["low"], one["high"]
        row = {"difference": one["mean"], "ci": [low, high], "p": one["p"], "p_holm": adjusted[name]}
        row["verdict"] = verdict(one["mean"], high, adjusted[name])
        if adjusted[name] >= ALPHA:
            row["detectable"] = minimum_detectable_effect(values[name])
            row["seeds_needed"] = seeds_to_decide(values[name])
            row["problems_needed"] = problems_to_decide(values[name])
        out[name] = row
    return out


def verdict(mean: float, high: float, p_adjusted: float) -> str:
    """Apply the rule of ANALYSIS.md."""
    if p_adjusted < ALPHA and mean > 0:
        return "supported"
    if (p_adjusted < ALPHA and mean < 0) or high < SMALLEST_EFFECT:
        return "refuted"
    return "undecided"


def overall(rows: list[dict]) -> dict[str, str]:
    """Return one word for each hypothesis, from its verdicts on the benchmarks, as ANALYSIS.md says."""
    words = {}
    for name in dict.fromkeys(row["hypothesis"] for row in rows):
        decided = {row["verdict"] for row in rows if row["hypothesis"] == name} - {"undecided"}
        words[name] = "mixed" if len(decided) == 2 else next(iter(decided), "undecided")
    return words


def in_words(word: str, rows: list[dict]) -> str:
    """Return the words that a verdict over rows is shown in: *refuted* only where a difference is shown to be negative."""
    refuted = [row for row in rows if row["verdict"] == "refuted"]
    return NO_GAIN if word == "refuted" and all(row["ci"][1] > 0 for row in refuted) else word


# ---------------------------------------------------------------------------------------------- is it correction?
def controls(records: Records) -> list[dict[str, Any]]:
    """Test MGRPO's second attempts minus each control; empty if the profile asks for none of them."""
    cfg, seeds = records.cfg, list(records.cfg.seeds)
    if not {METHOD, BASELINE, "base"} <= set(cfg.control_arms) or not cfg.samples:
        return []
    drafts = f"drafts_of_{METHOD}"
    shown: dict[str, Callable[[str], np.ndarray]] = {
        "no_draft": lambda b: records.control(METHOD, "no_draft", b, seeds),
        "other_draft": lambda b: records.control(METHOD, "other_draft", b, seeds),
        "resample": lambda b: records.sampled(METHOD, b, "correct_1").mean(2),
        "untrained, GRPO": lambda b: records.control(BASELINE, drafts, b, seeds),
        "untrained, base": lambda b: records.control("base", drafts, b, seeds),
    }
    rows = []
    for family in FAMILIES:
        places = [(name, benchmark) for name in family for benchmark in cfg.benchmarks]
        theirs = {place: shown[place[0]](place[1]).astype(float) for place in places}
        ours = {p: records.chain(METHOD, p[1], "correct_2")[:, : theirs[p].shape[1]].astype(float) for p in places}
        for place, found in tested({place: ours[place] - theirs[place] for place in places}).items():
            accuracies = {"mgrpo": float(ours[place].mean()), "control_accuracy": float(theirs[place].mean())}
            rows.append({"control": place[0], "benchmark": place[1], **accuracies, **found})
    return rows


def self_correction(rows: list[dict]) -> dict[str, list[str]]:
    """Return for each benchmark the controls that MGRPO is *not* shown to beat; none: self-correction is shown there."""
    return {
        benchmark: [row["control"] for row in rows if row["benchmark"] == benchmark and row["verdict"] != "supported"]
        for benchmark in dict.fromkeys(row["benchmark"] for row in rows)
    }


def cross_refinement(records: Records) -> list[dict[str, Any]]:
    """Return the accuracy of each arm's corrections of each arm's drafts, beside that of the drafts."""
    arms, rows = records.cfg.control_arms, []
    for drafts in arms:
        for corrector in arms:
            for benchmark in records.cfg.benchmarks:
                seeds = [None] if drafts == corrector == "base" else list(records.cfg.seeds)
                first = records.chain(drafts, benchmark, "correct_1")
                if drafts == corrector:
                    second = records.chain(drafts, benchmark, "correct_2")
                else:
                    second = records.control(corrector, f"drafts_of_{drafts}", benchmark, seeds)
                place = {"drafts_of": drafts, "corrected_by": corrector, "benchmark": benchmark}
                means = {"drafts": float(first.mean()), "corrections": float(second.mean())}
                changed = {"i_to_c": float((~first & second).mean()), "c_to_i": float((first & ~second).mean())}
                rows.append({**place, **means, "ci": list(accuracy_interval(second)), **changed})
    return rows


# ---------------------------------------------------------------------------------------------- equal budgets at test
def budgets(records: Records) -> list[dict[str, Any]]:
    """Return pass@k and maj@k of sampled first attempts, and the accuracy of a sampled attempt with its correction.

    Each has the tokens that it costs; means go over seeds and problems. ``k`` is None for attempt and correction.
    """
    rows = []
    for arm in records.seeds if records.cfg.samples else []:
        for benchmark in records.cfg.benchmarks:
            right = records.sampled(arm, benchmark, "correct_1")
            answers = records.sampled(arm, benchmark, "answer_1")
            tokens = [float(records.sampled(arm, benchmark, f"tokens_{k}").mean()) for k in (1, 2)]
            place = {"arm": arm, "benchmark": benchmark}
            for k in range(1, records.cfg.samples + 1):
                passed = np.stack([pass_at_k(one, k) for one in right])
                voted = np.stack([maj_at_k(a.tolist(), one, k) for a, one in zip(answers, right, strict=True)])
                found = {"pass": passed, "maj": voted}
                means = {name: float(array.mean()) for name, array in found.items()}
                intervals = {f"{name}_ci": list(accuracy_interval(array)) for name, array in found.items()}
                rows.append({**place, "k": k, "tokens": k * tokens[0], **means, **intervals})
            chain = records.sampled(arm, benchmark, "correct_2").mean(2)
            interval = list(accuracy_interval(chain))
            rows.append({**place, "k": None, "tokens": sum(tokens), "chain": float(chain.mean()), "chain_ci": interval})
    return rows


def at_equal_tokens(summary: dict) -> list[tuple[dict, list[dict], dict]]:
    """Return each attempt with correction, all votes of its arm, and the largest that its tokens (+5%) pay for."""
    found = []
    for pair in (row for row in summary["budgets"] if row["k"] is None):
        place = (pair["arm"], pair["benchmark"])
        votes = [row for row in summary["budgets"] if (row["arm"], row["benchmark"]) == place and row["k"]]
        paid = [row for row in votes if row["tokens"] <= 1.05 * pair["tokens"]] or votes[:1]
        found.append((pair, votes, max(paid, key=lambda row: row["k"])))
    return found


# ---------------------------------------------------------------------------------------------- choices, collapse
def robustness(records: Records) -> list[dict[str, Any]]:
    """Return H1, H2 and H3 under other choices, on the probed problems: guiding phrase, temperature, batch size."""
    cfg, seeds = records.cfg, list(records.cfg.seeds)
    if not {METHOD, BASELINE} <= set(cfg.control_arms) or not cfg.samples:
        return []

    def outcomes(arm: str, benchmark: str) -> dict[tuple[str, str], np.ndarray]:
        found = {
            ("H1", "as reported"): records.probed(arm, benchmark, "correct_1"),
            ("H2", "as reported"): records.probed(arm, benchmark, "correct_2"),
        }
        for number in range(1, len(PHRASES) + 1):
            if number != cfg.eval_phrase:
                found["H2", f"phrase {number}"] = records.control(arm, f"phrase_{number}", benchmark, seeds)
        for k in (1, 2):
            found[f"H{k}", "other batch size"] = records.control(arm, f"batch_{k}", benchmark, seeds)
            found[f"H{k}", "temperature 1"] = records.sampled(arm, benchmark, f"correct_{k}").mean(2)
        return found

    rows = []
    for benchmark in cfg.benchmarks:
        ours, theirs = outcomes(METHOD, benchmark), outcomes(BASELINE, benchmark)
        differences = {place: ours[place].astype(float) - theirs[place] for place in ours}
        for hypothesis, choice in list(ours):
            if hypothesis == "H2":  # another phrase leaves the first attempt
                first = ours.get(("H1", choice), ours["H1", "as reported"])
                differences["H3", choice] = ours["H2", choice].astype(float) - first
        for (hypothesis, choice), difference in differences.items():
            one = estimate(difference)
            place = {"hypothesis": hypothesis, "benchmark": benchmark, "choice": choice}
            rows.append({**place, "difference": one["mean"], "ci": [one["low"], one["high"]]})
    return rows


def changes(records: Records, arm: str, benchmark: str) -> dict[str, Any]:
    """Return how second attempts differ from first ones.

    Shares of copies and changed answers; edit distance, as a share of the longer text; conditional rates; the share of
    fixed answers whose draft was cut off or had no answer; an exact McNemar p-value for each seed.
    """
    columns = ("correct_1", "correct_2", "text_1", "text_2", "answer_1", "answer_2", "truncated_1")
    first, second, text, again, answer, new, cut = (records.chain(arm, benchmark, column) for column in columns)
    first, second = first.astype(bool), second.astype(bool)
    fixed, unfinished = ~first & second, cut.astype(bool) | pd.isna(answer)
    distance = [Levenshtein.normalized_distance(a, b) for a, b in zip(text.flat, again.flat, strict=True)]
    return {
        "copied": float((text == again).mean()),
        "answer_changed": float(((answer != new) & ~(pd.isna(answer) & pd.isna(new))).mean()),
        "edit_distance": float(np.mean(distance)),
        "i_to_c_of_wrong": float(fixed.sum() / max((~first).sum(), 1)),
        "c_to_i_of_right": float((first & ~second).sum() / max(first.sum(), 1)),
        "mended_unfinished": float((fixed & unfinished).sum() / max(fixed.sum(), 1)),
        "mcnemar": [mcnemar(one, two) for one, two in zip(first, second, strict=True)],
    }
