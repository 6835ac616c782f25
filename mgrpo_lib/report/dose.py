"""Dose and response: how often a base model fixes a wrong guess, and what MGRPO makes of it (no torch). Also the theory.

Theory. A group of H corrections of a wrong draft, k of them right. With group-normalised advantages its gradient pushes the
logit of the fix rate p by sqrt(k (H - k)) / H. Over groups, with k binomial, the mean push is `push`. So the logit rises as

    d logit(p) / dt = rate * push(p, H),

with one constant, `rate`, per step. For small p the push is p sqrt(H - 1), so the step of take-off goes as 1 / dose.
"""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from mgrpo_lib.experiment import fingerprints, store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report import style, tables
from mgrpo_lib.report.records import Records
from mgrpo_lib.report.statistics import estimate, holm, rate_interval
from mgrpo_lib.report.verdicts import ALPHA, SMALLEST_EFFECT

SET = "blanks"
BUDGETS = {"mgrpo": "grpo_matched", "mgrpo_long": "grpo_matched_long"}  # each arm and its token-matched baseline
HALF = 0.5
LOW, HIGH = 0.01, 0.10  # doses of hypothesis D1
NONE = "no gain of 2 points or more"


# ---------------------------------------------------------------------------------------------- theory
def push(p: np.ndarray, group: int) -> np.ndarray:
    """Return the mean push of a group's gradient on the logit of the fix rate: E sqrt(k (H - k)) / H, k ~ Binomial(H, p).

    >>> push(np.array([0.0, 0.5]), 2).tolist()  # half of the pairs differ, each pushes by 1/2
    [0.0, 0.25]
    """
    p = np.asarray(p, dtype=float)
    each = [math.comb(group, k) * p**k * (1 - p) ** (group - k) * math.sqrt(k * (group - k)) for k in range(1, group)]
    return sum(each) / group


def curve(dose: float, rate: float, steps: int, group: int) -> np.ndarray:
    """Return the fix rate at steps 0 to `steps`, by the theory.

    Args:
        dose: fix rate before the first step, in (0, 1).
        rate: the fitted constant, per step.
        group: corrections of a draft, H.
    """
    logit = math.log(dose / (1 - dose))
    rates = [dose]
    for _ in range(steps):
        for _ in range(2):  # half steps: the solution is smooth
            logit += rate / 2 * float(push(1 / (1 + math.exp(-logit)), group))
        rates.append(1 / (1 + math.exp(-logit)))
    return np.array(rates)


def fitted_rate(doses: list[float], measured: list[list[dict]], group: int) -> float:
    """Return the constant for which `curve` is nearest to the measured fix rates, in least squares.

    Args:
        doses: of each training.
        measured: rows ``step, fix_rate`` of each training.
    """

    def miss(log_rate: float) -> float:
        total = 0.0
        for dose, rows in zip(doses, measured, strict=True):
            rates = curve(dose, math.exp(log_rate), rows[-1]["step"], group)
            total += sum((rates[row["step"]] - row["fix_rate"]) ** 2 for row in rows)
        return total

    return math.exp(minimize_scalar(miss, bounds=(math.log(1e-3), math.log(10)), method="bounded").x)


def take_off(rows: list[dict]) -> int | None:
    """Return the first measured step whose fix rate is one half or more; None: none was."""
    return next((row["step"] for row in rows if row["fix_rate"] >= HALF), None)


# ---------------------------------------------------------------------------------------------- numbers
def summarise(cfg: Config) -> dict[str, Any]:
    """Write ``dose.json``, its table and its figure from the records of every base model; return the numbers.

    A row is one base model: ``dose`` with ``dose_ci``, and for each budget the gain of attempt 2 over token-matched
    GRPO on blanks with interval, p-value (Holm over the base models) and verdict, and the step of take-off of each seed.

    Raises:
        FileNotFoundError: a model was not trained, tested or measured with these parameters.
    """
    rows = [_row(cfg.of_base(base)) for base in cfg.bases]
    for arm in BUDGETS:
        adjusted = holm({row["base"]: row[arm]["p"] for row in rows})
        for row in rows:
            row[arm] |= {"p_holm": adjusted[row["base"]], "verdict": _verdict(row[arm], adjusted[row["base"]])}
    longest = list(BUDGETS)[-1]
    ladder = [
        row for row in rows if row["dose"] > 0 and cfg.of_base(row["base"]).base_continued
    ]  # these differ in dose alone
    doses = [row["dose"] for row in ladder for _ in cfg.seeds]
    rate = fitted_rate(doses, [path for row in ladder for path in row[longest]["fix_rates"]], cfg.num_corrections)
    for row in rows:
        steps = 100 * row[longest]["steps"]
        rates = curve(row["dose"], rate, steps, cfg.num_corrections) if row["dose"] > 0 else np.zeros(1)
        row["theory_take_off"] = int(np.argmax(rates >= HALF)) or None
    manifest = cfg.of_base(next(iter(cfg.bases))).run_folder / "run.json"
    content = {
        "profile": cfg.profile,
        "key": fingerprints.dose_key(cfg),
        "params": cfg.model_dump(exclude={"profile", "arm", "seed", "output_root", "data_dir"}),
        "rate": rate,
        "slope": _slope(ladder, longest),
        "hypotheses": _hypotheses(rows, _slope(ladder, longest)),
        "rows": rows,
        "environment": store.read_json(manifest)["environment"],
    }
    found = table(content)
    store.write_text(cfg.results / "dose.md", tables.markdown(found) + "\n")
    store.write_text(cfg.results / "dose.csv", found.to_csv(index=False))
    drawn = figure(content)
    style.save(drawn, cfg.figures, "dose", "When does MGRPO take off?")
    plt.close(drawn)
    store.write_json(cfg.results / "dose.json", content)
    return content


def _row(cfg: Config) -> dict[str, Any]:
    records, before = Records(cfg), preflight(cfg)
    shares = [np.mean(one["correct_2"]) for one in before if not one["correct_1"][0]]
    row = {
        "base": cfg.base,
        "dose": float(np.mean(shares)),
        "dose_ci": list(rate_interval(shares)),
        "wrong_drafts": len(shares),
        "accuracy": {name: float(records.chain("base", name, "correct_1").mean()) for name in cfg.benchmarks},
    }
    for arm, baseline in BUDGETS.items():
        ours, theirs = (records.chain(one, SET, "correct_2").astype(float) for one in (arm, baseline))
        found = estimate(ours - theirs)
        runs = [records.runs[cfg.of_arm(arm, seed).run_name] for seed in cfg.seeds]
        paths = [store.read_jsonl(cfg.of_arm(arm, seed).run_folder / "fix_rate.jsonl") for seed in cfg.seeds]
        row[arm] = {
            "gain": found["mean"],
            "gain_ci": [found["low"], found["high"]],
            "p": found["p"],
            "accuracy": float(ours.mean()),
            "baseline": float(theirs.mean()),
            "steps": max(run["steps"] for run in runs),
            "train_tokens": float(np.mean([run["train_tokens"] for run in runs])),
            "take_off": [take_off(path) for path in paths],
            "fix_rates": paths,
        }
    return row


def preflight(cfg: Config) -> list[dict]:
    """Return the records that notebook 02 left of a base model.

    Raises:
        FileNotFoundError: there are none.
    """
    manifest = cfg.of_arm("base").results / "preflight" / f"base-{SET}.json"
    return store.read_records(manifest, store.read_json(manifest)["key"])


def _verdict(found: dict, p: float) -> str:
    if p < ALPHA:
        return "gain" if found["gain"] > 0 else "loss"
    return NONE if found["gain_ci"][1] < SMALLEST_EFFECT else "undecided"


def _hypotheses(rows: list[dict], slope: dict | None) -> dict[str, str]:
    """Answer the hypotheses of ANALYSIS.md: ``supported`` or ``not supported``."""
    short, long = BUDGETS
    gains = {arm: [row["dose"] for row in rows if row[arm]["verdict"] == "gain"] for arm in BUDGETS}
    low = [row for row in rows if row["dose"] < LOW]
    answers = {
        "D1": any(dose >= HIGH for dose in gains[short]) and any(row[short]["verdict"] == NONE for row in low),
        "D2": min(gains[long], default=1.0) < min(gains[short], default=1.0),
        "D3": slope is not None and slope["ci"][0] <= -1 <= slope["ci"][1],
    }
    return {name: "supported" if holds else "not supported" for name, holds in answers.items()}


def _slope(rows: list[dict], arm: str) -> dict[str, Any] | None:
    """Fit log(take-off) = a + slope log(dose) over the trainings that took off; the theory says -1.

    The interval is a bootstrap's over base models. None: fewer than three base models took off.
    """
    points = [
        [(math.log(row["dose"]), math.log(max(step, 1))) for step in row[arm]["take_off"] if step is not None]
        for row in rows
    ]
    points = [own for own in points if own]
    if len(points) < 3:
        return None
    draws, slopes = np.random.default_rng(0), []
    for _ in range(2000):
        chosen = draws.integers(0, len(points), len(points))
        if len(set(chosen.tolist())) > 1:
            slopes.append(np.polyfit(*zip(*[point for i in chosen for point in points[i]], strict=True), 1)[0])
    slope = np.polyfit(*zip(*[point for own in points for point in own], strict=True), 1)[0]
    return {"slope": float(slope), "ci": np.quantile(slopes, [0.025, 0.975]).tolist(), "bases": len(points)}


# ---------------------------------------------------------------------------------------------- table and figure
def table(content: dict) -> pd.DataFrame:
    """Show each base model: its dose, and for each budget the gain, the verdict and the steps of take-off."""
    shown = []
    for row in content["rows"]:
        cells = {"base": row["base"], "dose, %": tables.percent(row["dose"], row["dose_ci"])}
        for arm in BUDGETS:
            own = row[arm]
            budget = f"{own['steps']} steps"
            cells[f"gain, {budget}"] = tables.percent(own["gain"], own["gain_ci"], sign=True)
            cells[f"verdict, {budget}"] = own["verdict"]
        steps = ["-" if step is None else str(step) for step in own["take_off"]]
        shown.append({**cells, "take-off, steps": ", ".join(steps), "theory": str(row["theory_take_off"] or "-")})
    return pd.DataFrame(shown)


def figure(content: dict) -> plt.Figure:
    """Draw the gain against the dose, the fix rate in training, and the step of take-off, each beside the theory."""
    rows, group, rate = content["rows"], content["params"]["num_corrections"], content["rate"]
    drawn, axes, _ = style.panels(["gain by dose", "fix rate in training", "take-off by dose"], 2.4)
    gain, paths, steps = axes.values()
    colors = dict(zip(BUDGETS, (style.COLORS["grpo"], style.COLORS["mgrpo"]), strict=True))
    fine = np.geomspace(min(max(row["dose"], 5e-4) for row in rows) / 1.5, max(row["dose"] for row in rows) * 1.5, 60)
    long = list(BUDGETS)[-1]
    for arm, color in colors.items():
        length = max(row[arm]["steps"] for row in rows)
        wrong = 1 - np.mean([row["accuracy"][SET] for row in rows])
        gain.plot(
            100 * fine, [100 * wrong * curve(d, rate, length, group)[-1] for d in fine], color=color, ls="--", lw=1
        )
        for row in rows:
            low, high = (100 * abs(row[arm]["gain"] - end) for end in row[arm]["gain_ci"])
            wide = [[100 * (row["dose"] - row["dose_ci"][0])], [100 * (row["dose_ci"][1] - row["dose"])]]
            gain.errorbar(
                100 * row["dose"], 100 * row[arm]["gain"], [[low], [high]], wide, color=color, marker="o", ms=4, lw=1
            )
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(rows)))
    for row, shade in zip(rows, shades, strict=True):
        for path in row[long]["fix_rates"]:
            paths.plot([one["step"] for one in path], [100 * one["fix_rate"] for one in path], color=shade, lw=0.9)
        if row["dose"] > 0:
            paths.plot(100 * curve(row["dose"], rate, row[long]["steps"], group), color=shade, ls="--", lw=1)
        for step in row[long]["take_off"]:
            never = step is None
            place = row[long]["steps"] * 1.15 if never else step
            steps.plot(
                100 * row["dose"], place, "^" if never else "o", color=shade, ms=4, mfc="none" if never else shade
            )
    whole = [int(np.argmax(curve(d, rate, 3000, group) >= HALF)) for d in fine]
    steps.plot(100 * fine, [step or np.nan for step in whole], color=style.INK, ls="--", lw=1)
    gain.set(xscale="log", xlabel="dose: wrong guesses fixed, %", ylabel="MGRPO - token-matched GRPO, points")
    paths.set(xlabel="step", ylabel="wrong guesses fixed, %", ylim=(0, 100))
    steps.set(xscale="log", yscale="log", xlabel="dose: wrong guesses fixed, %", ylabel="step at which half are fixed")
    steps.set_ylim(top=max(row[long]["steps"] for row in rows) * 1.6)
    handles = [style.key(f"{rows[-1][arm]['steps']} steps", color=color, marker="o") for arm, color in colors.items()]
    handles += [
        style.key("theory", color=style.INK, ls="--"),
        style.key("not within the budget", color=style.INK, marker="^", mfc="none", ls=""),
    ]
    style.finish(drawn, "Base models that fix more wrong guesses take off earlier. Miniature, blanks", "", handles)
    return drawn
