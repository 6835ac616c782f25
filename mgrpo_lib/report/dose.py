"""Dose and response: how often a base model fixes a wrong guess, and what MGRPO makes of it (no torch)."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator
from scipy.special import stdtrit
from scipy.stats import linregress

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report import style, tables
from mgrpo_lib.report.records import Records
from mgrpo_lib.report.statistics import accuracy_interval, estimate, holm
from mgrpo_lib.report.theory import curve, fitted_rate, half_after, passed_half, squared_error, take_off
from mgrpo_lib.report.verdicts import ALPHA, NO_GAIN, SMALLEST_EFFECT

SET = "blanks"
BUDGETS = {"mgrpo": "grpo_matched", "mgrpo_long": "grpo_matched_long"}  # each arm and its token-matched baseline
SHORT, LONG = BUDGETS
THEORIES = {"gradient": False, "Adam": True}  # and whether it divides by the root mean square
LOW, HIGH = 0.01, 0.10  # doses of hypothesis D1
FIRST_SEEN = ("fix_05", "fix_20")  # curves that Adam's theory was made from; D5 tests it on the others
CAPTION = {
    "title": "When does MGRPO take off?",
    "text": "Base models of the miniature that fix more or fewer of their wrong guesses before training (the dose). Left: gain of "
    "attempt 2 over token-matched GRPO on blanks, 95% intervals. Middle: share of wrong guesses that a sampled correction "
    "fixes, a line for each seed, beside it the dose in percent. Right: the step at which it passes one half. Dashed and "
    "dotted: two theories with one constant each. A dose of 0 stands at 0.1%; on the left, the budgets stand a little beside "
    "their dose.",
}
SHOWN = 0.001  # a smaller dose stands here on a logarithmic axis


# ---------------------------------------------------------------------------------------------- numbers
def summarise(cfg: Config) -> dict[str, Any]:
    """Write ``dose.json``, its table and its figure from the records of every base model; return the numbers.

    A row is one base model: ``dose`` with ``dose_ci``, and for each budget the gain of attempt 2 over token-matched
    GRPO on blanks with interval, p-value (Holm over the base models) and verdict, and the step of take-off of each seed.

    Raises:
        FileNotFoundError: a model was not trained, tested or measured with these parameters.
    """
    cfg = cfg.of_arm("base")
    rows = [_row(cfg.of_base(base)) for base in cfg.bases]
    for arm in BUDGETS:
        adjusted = holm({row["base"]: row[arm]["p"] for row in rows})
        for row in rows:
            row[arm] |= {"p_holm": adjusted[row["base"]], "verdict": _verdict(row[arm], adjusted[row["base"]])}
    group, slope = cfg.num_corrections, _slope(rows)
    rates = {name: fitted_rate(*_curves(rows), group, adam) for name, adam in THEORIES.items()}
    for row in rows:
        foretold_of = {
            name: half_after(max(row["dose"], 1e-6), rates[name], group, adam) for name, adam in THEORIES.items()
        }
        row["theory"] = foretold_of if row["dose"] else dict.fromkeys(THEORIES)
    manifest = cfg.of_base(next(iter(cfg.bases))).manifest("run")
    content = {
        "profile": cfg.profile,
        "key": keys.dose_key(cfg),
        "params": cfg.model_dump(exclude={"profile", "arm", "seed", "output_root", "data_dir"}),
        "rates": rates,
        "foretold": (foretold := _foretold(rows, group)),
        "slope": slope,
        "theory_slopes": _theory_slopes(rows),
        "hypotheses": _hypotheses(rows, slope, foretold),
        "rows": rows,
        "environment": store.read_json(manifest)["environment"],
    }
    found = table(content)
    store.write_text(cfg.results / "dose.md", tables.markdown(found))
    store.write_text(cfg.results / "dose.csv", found.to_csv(index=False))
    drawn = figure(content)
    style.save(drawn, cfg.figures, "dose", CAPTION["title"], CAPTION["text"])
    store.write_json(cfg.figures / "captions.json", {"dose": CAPTION})
    plt.close(drawn)
    store.write_json(cfg.results / "dose.json", content)
    return content


def _row(cfg: Config) -> dict[str, Any]:
    records, before = Records(cfg), preflight(cfg)
    shares = [np.mean(one["correct_2"]) for one in before if not one["correct_1"][0]]
    row = {
        "base": cfg.base,
        "dose": float(np.mean(shares)),
        "dose_ci": list(accuracy_interval(shares, rare=True)),
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
    return NO_GAIN if found["gain_ci"][1] < SMALLEST_EFFECT else "undecided"


def _curves(rows: list[dict], bases: tuple[str, ...] | None = None) -> tuple[list[float], list[list[dict]]]:
    """Return dose and measured fix rates of every long training of MGRPO, of all base models or some."""
    own = [row for row in rows if bases is None or row["base"] in bases]
    paths = [(max(row["dose"], 1e-6), path) for row in own for path in row[LONG]["fix_rates"]]
    return [dose for dose, _ in paths], [path for _, path in paths]


def _foretold(rows: list[dict], group: int) -> dict[str, float] | None:
    """Return each theory's mean squared error on the base models that it was not fitted to; None where there are none.

    Keys that end in ``, rising`` leave out the base models of dose 0, which every theory gets right.
    """
    others = tuple(row["base"] for row in rows if row["base"] not in FIRST_SEEN)
    if len(others) in (0, len(rows)):
        return None
    errors = {}
    for name, adam in THEORIES.items():
        rate = fitted_rate(*_curves(rows, FIRST_SEEN), group, adam)
        rising = tuple(row["base"] for row in rows if row["base"] in others and row["dose"] > 0)
        for what, bases in (("", others), (", rising", rising)):
            errors[name + what] = squared_error(rate, *_curves(rows, bases), group, adam)
    return errors


def _hypotheses(rows: list[dict], slope: dict | None, foretold: dict | None) -> dict[str, str]:
    """Answer D1 to D5 of ANALYSIS.md: ``supported`` or ``not supported``; empty for fewer than three base models."""
    if len(rows) < 3:
        return {}
    gains = {arm: [row["dose"] for row in rows if row[arm]["verdict"] == "gain"] for arm in BUDGETS}
    low = [row for row in rows if row["dose"] < LOW]

    def holds(value: float) -> bool:
        return slope is not None and slope["ci"][0] <= value <= slope["ci"][1]

    answers = {
        "D1": any(dose >= HIGH for dose in gains[SHORT]) and any(row[SHORT]["verdict"] == NO_GAIN for row in low),
        "D2": min(gains[LONG], default=1.0) < min(gains[SHORT], default=1.0),
        "D3": holds(-1),
        "D4": holds(-0.5) and not holds(-1),
        "D5": foretold is not None and foretold["Adam"] < foretold["gradient"],
    }
    return {name: "supported" if answer else "not supported" for name, answer in answers.items()}


def _slope(rows: list[dict]) -> dict[str, Any] | None:
    """Fit log(take-off) = a + slope log(dose) over the long trainings that took off.

    The interval is a bootstrap's over base models. Beside it ``between`` is the slope where take-off is read between the measured
    steps, and ``ci_t`` least squares' own interval over the means of the base models, which is wider for so few. None: fewer than
    three base models took off.
    """
    points = [
        [(math.log(row["dose"]), math.log(max(step, 1))) for step in row[LONG]["take_off"] if step is not None]
        for row in rows
        if row["dose"] > 0
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
    read = [(row["dose"], passed_half(path)) for row in rows if row["dose"] > 0 for path in row[LONG]["fix_rates"]]
    between = np.polyfit(*np.log([point for point in read if point[1]]).T, 1)[0]
    line = linregress(*zip(*(np.mean(own, axis=0) for own in points), strict=True))
    wide = stdtrit(len(points) - 2, 0.975) * line.stderr
    return {
        "slope": float(slope),
        "ci": np.quantile(slopes, [0.025, 0.975]).tolist(),
        "ci_t": [float(line.slope - wide), float(line.slope + wide)],
        "between": float(between),
        "bases": len(points),
    }


def _theory_slopes(rows: list[dict]) -> dict[str, float] | None:
    """Return the slopes that the fitted theories have over the doses that took off; their limits hold for small doses."""
    took_off = [row for row in rows if row["dose"] > 0 and any(step is not None for step in row[LONG]["take_off"])]
    if len(took_off) < 3:
        return None
    doses = [math.log(row["dose"]) for row in took_off]
    steps = {name: [math.log(row["theory"][name]) for row in took_off] for name in THEORIES}
    return {name: float(np.polyfit(doses, logs, 1)[0]) for name, logs in steps.items()}


# ---------------------------------------------------------------------------------------------- table and figure
def table(content: dict) -> pd.DataFrame:
    """Show each base model: its dose, and for each budget the gain, the verdict and the steps of take-off."""
    shown = []
    for row in content["rows"]:
        cells = {"base": row["base"], "dose, %": tables.percent(row["dose"], row["dose_ci"])}
        for arm in BUDGETS:
            own, budget = row[arm], f"{row[arm]['steps']} steps"
            cells[f"gain, {budget}"] = tables.percent(own["gain"], own["gain_ci"], sign=True)
            cells[f"verdict, {budget}"] = own["verdict"]
        cells["take-off, steps"] = ", ".join("-" if step is None else str(step) for step in row[LONG]["take_off"])
        shown.append(cells | {f"theory, {name}": str(row["theory"][name] or "-") for name in THEORIES})
    return pd.DataFrame(shown)


def figure(content: dict) -> plt.Figure:
    """Draw the gain against the dose, the fix rate in training, and the step of take-off beside both theories."""
    rows, group = content["rows"], content["params"]["num_corrections"]
    drawn, axes, _ = style.panels(["gain by dose", "fix rate in training, by dose, %", "take-off by dose"], 2.4)
    gain, paths, steps = axes.values()
    color = style.COLORS["mgrpo"]
    looks = {SHORT: {"ls": "--", "mfc": "white"}, LONG: {"ls": "-", "mfc": color}}
    for aside, (arm, look) in zip((0.93, 1.07), looks.items(), strict=True):  # both are seen where both gain the same
        places = [aside * 100 * max(row["dose"], SHOWN) for row in rows]
        for place, row in zip(places, rows, strict=True):
            low, high = (100 * abs(row[arm]["gain"] - end) for end in row[arm]["gain_ci"])
            wide = [[100 * (row["dose"] - row["dose_ci"][0])], [100 * (row["dose_ci"][1] - row["dose"])]]
            gain.errorbar(place, 100 * row[arm]["gain"], [[low], [high]], wide, color=color, lw=1, ls="")
        gain.plot(places, [100 * row[arm]["gain"] for row in rows], color=color, marker="o", ms=4, lw=0.8, **look)
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(rows)))
    for row, shade in zip(rows, shades, strict=True):
        for path in row[LONG]["fix_rates"]:
            paths.plot([one["step"] for one in path], [100 * one["fix_rate"] for one in path], color=shade, lw=0.9)
        foretold = curve(max(row["dose"], 1e-6), content["rates"]["Adam"], row[LONG]["steps"], group, True)
        paths.plot(100 * foretold, color=shade, ls=":", lw=1.2)
        took_off = [step for step in row[LONG]["take_off"] if step is not None]
        place = (np.mean(took_off), 50) if took_off else (0.8 * row[LONG]["steps"], 5)
        white = {"color": "white", "pad": 0.2, "lw": 0}
        paths.text(*place, f"{100 * row['dose']:.2g}", color=shade, size=8, ha="center", va="center", bbox=white)
        for step in row[LONG]["take_off"]:
            place, look = (row[LONG]["steps"] * 1.15, "^") if step is None else (step, "o")
            steps.plot(
                100 * max(row["dose"], SHOWN), place, look, color=shade, ms=4, mfc="none" if step is None else shade
            )
    draw_theories(steps, content, [row["dose"] for row in rows])
    gain.set(xscale="log", xlabel="dose: wrong guesses fixed, %", ylabel="MGRPO - token-matched GRPO, points")
    paths.set(xlabel="step", ylabel="wrong guesses fixed, %", ylim=(0, 100))
    steps.set(xscale="log", yscale="log", xlabel="dose: wrong guesses fixed, %", ylabel="step at which half are fixed")
    for axis in (gain, steps):
        plain(axis.xaxis, [0.1, 0.3, 1, 3, 10, 30])
    plain(steps.yaxis, [10, 20, 50, 100, 200])
    most = max(row[LONG]["steps"] for row in rows)
    steps.set(xlim=(80 * SHOWN, 60), ylim=(most / 40, most * 1.6))
    handles = [style.key(f"{rows[-1][arm]['steps']} steps", color=color, marker="o", **looks[arm]) for arm in BUDGETS]
    never = style.key("not within the budget", color=style.INK, marker="^", mfc="none", ls="")
    title = "The rarer a correction is before training, the later MGRPO takes off. Miniature, blanks"
    style.finish(drawn, title, "", [*handles, never, *theory_keys()])
    return drawn


def plain(axis, ticks: list[float]) -> None:
    """Label a logarithmic axis by these numbers, where it shows them."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FormatStrFormatter("%g"))


def draw_theories(axis: plt.Axes, content: dict, doses: list[float]) -> None:
    """Draw the step of take-off against the dose, in percent, by each theory."""
    group = content["params"]["num_corrections"]
    fine = np.geomspace(min(max(dose, 5e-4) for dose in doses) / 1.5, max(doses) * 1.3, 40)
    for (name, adam), line in zip(THEORIES.items(), ("--", ":"), strict=True):
        late = [half_after(dose, content["rates"][name], group, adam) for dose in fine]
        axis.plot(100 * fine, [step or np.nan for step in late], color=style.INK, ls=line, lw=1.2)


def theory_keys() -> list:
    return [
        style.key("theory, plain gradient", color=style.INK, ls="--"),
        style.key("theory, Adam", color=style.INK, ls=":"),
    ]
