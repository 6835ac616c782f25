"""What to see in each figure, in words made from the same numbers: the text for a paper's caption, and for readers who cannot see
it.
"""

from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report.tables import name_of, ordered_arms, percent
from mgrpo_lib.report.verdicts import BASELINE, METHOD, SMALLEST_EFFECT

TITLES = {
    "method": "The method: two layers of GRPO, one policy, one step",
    "learning_curves": "Rewards in training, of both layers",
    "collapse": "What corrections do in training",
    "attempts": "Both attempts of every arm on every test set",
    "flows": "What becomes of right and wrong first attempts",
    "transitions": "What second attempts mend and break",
    "contrasts": "Differences between the arms",
    "frontier": "Accuracy against the tokens of training",
    "hypotheses": "Every hypothesis on every test set: intervals and verdicts",
    "controls": "MGRPO's second attempts against every control",
    "budgets": "Accuracy against the tokens spent at test",
}


def where(summary: dict) -> str:
    """Of which experiment the numbers are; a miniature is called one."""
    params = summary["params"]
    model = "Miniature" if params["model"] == "miniature" else params["model"]
    seeds, n = counted(params["seeds"]), summary["rows"][0]["n"]
    return f"{model}, profile {summary['profile']}: {seeds}, {n} problems a test set"


def counted(seeds: list[int]) -> str:
    return "1 training seed" if len(seeds) == 1 else f"{len(seeds)} training seeds"


def reference_arm(summary: dict) -> str:
    """The arm that the others are compared with: the matched baseline, or what an experiment has in its place."""
    against = [row["against"] for row in summary["contrasts"]]
    return next(arm for arm in (BASELINE, METHOD, "base", *against) if arm in against)


def captions(cfg: Config, summary: dict) -> dict[str, dict[str, str]]:
    """``title`` and ``text`` of every figure that the experiment has rows for."""
    method = METHOD if METHOD in ordered_arms(summary) else ordered_arms(summary)[-1]
    texts = {
        "method": _method(),
        "learning_curves": _learning(cfg),
        "collapse": _collapse(cfg),
        "attempts": _attempts(summary, method),
        "flows": _flows(summary, method),
        "transitions": _transitions(summary, method),
        "frontier": _frontier(summary),
    }
    optional = {"contrasts": _contrasts, "hypotheses": _hypotheses, "controls": _controls, "budgets": _budgets}
    texts |= {name: text(summary) for name, text in optional.items() if summary[name]}
    place = {name: "" if name == "method" else f" {where(summary)}." for name in texts}
    return {name: {"title": TITLES[name], "text": texts[name] + place[name]} for name in TITLES if name in texts}


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _row(summary: dict, arm: str, benchmark: str) -> dict:
    return next(row for row in summary["rows"] if (row["arm"], row["benchmark"]) == (arm, benchmark))


def _method() -> str:
    return (
        "Layer 1 samples G drafts of a question, rewards each 1 or 0 by a rule, and compares it with its group. Layer 2 sees the "
        "question, one of those drafts and a guiding phrase, samples H corrections, and rewards and compares them in the same "
        "way. One optimizer step on the weighted sum of both losses trains the one policy."
    )


def _learning(cfg: Config) -> str:
    return (
        "Mean reward of first attempts (left) and of corrections (right) against all tokens sampled in training: lines are means "
        f"over seeds, bands reach from the lowest to the highest of {len(cfg.seeds)} (no confidence intervals)."
    )


def _collapse(cfg: Config) -> str:
    return (
        "Does the second layer collapse into copying? Shares of the corrections that copy their draft, change its answer, mend a "
        "wrong one or break a right one, and their edit distance from it, against all tokens sampled in training: means over "
        f"seeds, bands from the lowest to the highest of {len(cfg.seeds)} (no confidence intervals)."
    )


def _attempts(summary: dict, method: str) -> str:
    cells = []
    for benchmark in summary["params"]["benchmarks"]:
        row = _row(summary, method, benchmark)
        cells.append(f"{benchmark} {percent(row['acc_t1'])} to {percent(row['acc_t2'])}")
    return (
        "Right answers of each arm at the first attempt (open) and the second (filled), with 95% intervals over seeds and problems; "
        f"small strokes are seeds. {name_of(method)}, in percent: {', '.join(cells)}."
    )


def _flows(summary: dict, method: str) -> str:
    row = max((r for r in summary["rows"] if r["arm"] == method), key=lambda row: row["i_to_c"])
    return (
        "Where right and wrong first attempts (left) end at the second (right); widths are shares of all problems, numbers are the "
        f"mended and the broken ones in percent with 95% intervals. {name_of(method)} mends most on {row['benchmark']}: "
        f"{percent(row['i_to_c'], row['i_to_c_ci'])}."
    )


def _transitions(summary: dict, method: str) -> str:
    rows = [row for row in summary["rows"] if row["arm"] == method]
    gains = [row["benchmark"] for row in rows if row["delta_t1_t2_ci"][0] > 0]
    losses = [row["benchmark"] for row in rows if row["delta_t1_t2_ci"][1] < 0]
    found = [f"mends more than it breaks on {_and(gains)}"] if gains else []
    found += [f"breaks more than it mends on {_and(losses)}"] if losses else []
    rest = "the difference is within its 95% interval on every test set"
    return (
        "Second attempts that turn wrong answers right (to the right) and right ones wrong (to the left), in percent of all "
        f"problems with 95% intervals; the axis is logarithmic beyond 5. {name_of(method)} "
        + (
            _and(found) + "; elsewhere 0 is within the interval of the difference."
            if found
            else f"does neither surely: {rest}."
        )
    )


def _contrasts(summary: dict) -> str:
    rows = summary["contrasts"]
    above, below = (sum(row["ci"][0] > 0 for row in rows), sum(row["ci"][1] < 0 for row in rows))
    best = max(rows, key=lambda row: row["difference"])
    return (
        "Differences between arms on the same problems, first attempts open, second ones filled, in percentage points with 95% "
        f"intervals that are not adjusted for their number; the axis is logarithmic beyond 5. Of all {len(rows)} intervals (those "
        f"of `contrasts.md`) {above} lie wholly above 0 and {below} wholly below. The largest difference: {name_of(best['arm'])} "
        f"minus {name_of(best['against'])} on {best['benchmark']}, attempt {best['attempt']}, "
        f"{percent(best['difference'], best['ci'], sign=True)}."
    )


def _frontier(summary: dict) -> str:
    arms = [arm for arm in ordered_arms(summary) if arm != "base"]
    spent = {
        arm: [
            sum(run[cost] for run in runs) / len(runs) / 1e3
            for runs in [[run for run in summary["runs"].values() if run["arm"] == arm]]
            for cost in ("train_tokens", "processed_tokens")
        ]
        for arm in arms
    }
    cells = [f"{name_of(arm)} {sampled:.0f} and {read:.0f}" for arm, (sampled, read) in spent.items()]
    return (
        "Right answers against the tokens that training took: first attempts open, joined to the second ones, filled; 95% intervals "
        "over seeds and problems, dashes are seeds. Attempts, and arms of like cost, stand beside each other, not quite at their "
        "cost. Thousands of tokens, sampled, and sampled or read: " + "; ".join(cells) + "."
    )


def _hypotheses(summary: dict) -> str:
    words = [f"{name} is {word}" for name, word in summary["verdicts"].items()]
    shown = [r for r in summary["hypotheses"] if r["verdict"] == "supported"]
    cells = [f"{r['hypothesis']} on {r['benchmark']}, {percent(r['difference'], r['ci'], sign=True)}" for r in shown]
    return (
        "The hypotheses of ANALYSIS.md in percentage points with 95% intervals, coloured and marked by their verdicts; the grey band, "
        f"±{100 * SMALLEST_EFFECT:.0f} points, holds effects too small to matter, and the axis is logarithmic beyond 5. "
        f"{_and(words)}. " + (f"Supported: {'; '.join(cells)}." if cells else "None is supported on any test set.")
    )


def _controls(summary: dict) -> str:
    shown = [benchmark for benchmark, controls in summary["not_beaten"].items() if not controls]
    found = f"better than every control on {_and(shown)} alone" if shown else "nowhere better than every control"
    return (
        "Would the second attempt have been as good without reading the first? Right answers of MGRPO's second attempts and of each "
        "control in percent; around a control the 95% interval of its distance from MGRPO. By the plan's test MGRPO's second "
        f"attempts are {found}."
    )


def _budgets(summary: dict) -> str:
    better = []
    for chain in (row for row in summary["budgets"] if row["k"] is None and row["arm"] == METHOD):
        votes = [r for r in summary["budgets"] if (r["arm"], r["benchmark"]) == (METHOD, chain["benchmark"]) and r["k"]]
        paid = [row for row in votes if row["tokens"] <= 1.05 * chain["tokens"]] or votes[:1]
        if chain["chain_ci"][0] > max(paid, key=lambda row: row["k"])["maj_ci"][1]:
            better.append(chain["benchmark"])
    found = f"on {_and(better)} alone" if better else "nowhere"
    return (
        "Right answers against the tokens generated for a problem, at temperature 1: one attempt (open), an attempt and its correction "
        "(filled), majority votes among k attempts (lines), with 95% intervals, and any of k right (dotted, without); arms stand a "
        f"little beside each other. MGRPO's attempt and correction lie above as many tokens of its own votes, interval above interval, {found}."
    )
