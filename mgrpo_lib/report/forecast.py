"""What the committed preflights say: of the miniature beside what came of it, and of language models (no torch)."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import ROOT, load_config
from mgrpo_lib.report import dose, style
from mgrpo_lib.report.preflight import facts, sign, take_off
from mgrpo_lib.report.statistics import holm
from mgrpo_lib.report.verdicts import METHOD, in_words

SAME_DOSE = {"fix_05": "aimed", "break_05": "aimed, breaks right ones", "guess_05": "guessed again"}
CAPTION = {
    "title": "What can MGRPO amplify?",
    "text": "Left: three base models of the miniature that fix about as many wrong guesses before training, a line for each seed. Right: "
    "each base model and test set with its preflight. Across: how often a second try is right, of those that differ from a wrong "
    "draft. Up: the same of corrections, with 95% intervals. On the dotted line a correction is as good as a second try.",
}


def committed(results: Path = ROOT / "results") -> list[dict[str, Any]]:
    """Return what the committed preflights of language models found.

    Returns:
        A row for each: ``model, dtype, set, tokens`` (at most of an attempt), ``sft_steps``, ``found`` (see `facts`), ``steps``
        of take-off with Adam or None, and ``aim, look``: 1, -1 or 0 as `sign` has them of both differences from a second try,
        with Holm's correction over the sets of a model.
    """
    rows = []
    for manifest in sorted(results.glob("*/preflight/*.json")):
        base = store.read_json(results / manifest.parts[-3] / "runs" / "base" / "run.json")["params"]
        if base["model"] == "miniature":
            continue
        made = store.read_json(manifest)
        records = store.read_records(manifest, made["key"])
        found, name = facts(records), manifest.stem.removeprefix("base-")
        steps = take_off(found["dose"])["Adam"] if found["dose"] else None
        tokens = max(max(one["tokens_1"] + one["tokens_2"]) for one in records)
        asked = {"model": base["model"], "sft_steps": base["sft_steps"], "dtype": made["dtype"]}
        rows.append({**asked, "set": name, "tokens": tokens, "found": found, "steps": steps})
    for model in {row["model"] for row in rows}:
        own = [row for row in rows if row["model"] == model]
        for what in ("aim", "look"):
            adjusted = holm({str(i): row["found"][f"p_{what}"] for i, row in enumerate(own)})
            for i, row in enumerate(own):
                row[what] = sign(row["found"][f"{what}_minus_try"], adjusted[str(i)])
    return rows


def known() -> list[dict[str, Any]]:
    """Return what preflights say of the miniature, where it is known what came of it: profiles ``dose``, ``balance``, ``cpu``.

    Returns:
        A row for each base model and test set: ``base, set, found`` (see `facts`), ``steps`` of take-off with Adam, and of MGRPO's
        attempt 2 over token-matched GRPO ``gain`` and ``verdict``, after ``budget`` steps; ``took_off``, the measured step of each seed
        (None: not measured). Of profile ``cpu`` also ``changed``, the share of MGRPO's attempts 2 at test with another answer than
        attempt 1.
    """
    rows, cpu = [], load_config("cpu", arm="base", output_root=".")
    for profile in ("dose", "balance"):
        cfg = load_config(profile, arm="base", output_root=".")
        for row in store.read_json(cfg.results / "dose.json")["rows"]:
            own, found = row[dose.LONG], facts(dose.preflight(cfg.of_base(row["base"])))
            came = {"gain": (own["gain"], own["gain_ci"]), "verdict": own["verdict"], "budget": own["steps"]}
            came |= {"took_off": own["take_off"], "fix_rates": own["fix_rates"]}
            rows.append({"base": row["base"], "set": dose.SET, "found": found, **came})
    summary = store.read_json(cpu.results / "summary.json")
    changed = {row["benchmark"]: row["answer_changed"] for row in summary["rows"] if row["arm"] == METHOD}
    for row in summary["hypotheses"]:
        if row["hypothesis"] == "H2":
            manifest = cpu.results / "preflight" / f"base-{row['benchmark']}.json"
            found = facts(store.read_records(manifest, store.read_json(manifest)["key"]))
            verdict = "gain" if row["verdict"] == "supported" else in_words(row["verdict"], [row])
            came = {"gain": (row["difference"], row["ci"]), "verdict": verdict, "budget": cpu.max_steps}
            came |= {"changed": changed[row["benchmark"]], "took_off": None}
            rows.append({"base": "shipped", "set": row["benchmark"], "found": found, **came})
    for row in rows:
        row["steps"] = take_off(row["found"]["dose"])["Adam"]
    return rows


def hypotheses(rows: list[dict]) -> dict[str, str]:
    """Answer D6 and D7 of ANALYSIS.md from rows of `known`: ``supported``, ``refuted`` or ``undecided``."""
    own = {row["base"]: row for row in rows}
    breaks, took = own["break_05"]["verdict"], sum(step is not None for step in own["guess_05"]["took_off"])
    return {
        "D6": {"gain": "refuted", "undecided": "undecided"}.get(breaks, "supported"),
        "D7": "supported" if took == 0 else "undecided" if took == 1 else "refuted",
    }


def took_off(row: dict) -> bool:
    """Return whether MGRPO took off in a row of `known`; where no step was measured, whether attempt 2 gained."""
    return any(step is not None for step in row["took_off"]) if row["took_off"] else row["verdict"] == "gain"


def figure(rows: list[dict]) -> plt.Figure:
    """Draw fix rates of base models of the same dose, and the aim of corrections against that of second tries.

    Args:
        rows: see `known`.
    """
    drawn, axes, _ = style.panels(
        ["the same dose, three kinds of fixes", "aim of corrections and of second tries"], 2.6
    )
    paths, aims = axes.values()
    looks = dict(zip(SAME_DOSE, (style.COLORS["grpo_matched"], style.COLORS["mgrpo"], style.INK), strict=True))
    handles = []
    for row in rows:
        if row["base"] in looks:
            color, found = looks[row["base"]], row["found"]
            for path in row["fix_rates"]:
                paths.plot([one["step"] for one in path], [100 * one["fix_rate"] for one in path], color=color, lw=1)
            told = f"{SAME_DOSE[row['base']]} (dose {100 * found['fix'][0]:.1f}%)"
            handles.append(style.key(told, color=color))
        if row["found"]["aim"]:
            (aim, (low, high)), across = row["found"]["aim"], 100 * row["found"]["aim_try"][0]
            look = {"marker": "o", "color": style.COLORS["mgrpo"], "mfc": None if took_off(row) else "white"}
            aims.errorbar(across, 100 * aim, [[100 * (aim - low)], [100 * (high - aim)]], lw=1, ms=4.5, **look)
    aims.plot([0, 100], [0, 100], color=style.INK, ls=":", lw=1)
    paths.set(xlabel="step", ylabel="wrong guesses fixed, %", ylim=(0, 100))
    aims.set(xlabel="second try right, %", ylabel="correction right, %", xlim=(0, 100), ylim=(0, 100))
    dot = {"color": style.COLORS["mgrpo"], "marker": "o", "ls": ""}
    handles += [style.key("took off", **dot), style.key("did not", mfc="white", **dot)]
    style.finish(drawn, "MGRPO amplifies changes that are better aimed than a second try. Miniature", "", handles)
    return drawn


def draw() -> Path:
    """Draw the figure of the committed results; return its path."""
    folder = load_config("balance", arm="base", output_root=".").figures
    drawn = figure(known())
    path = style.save(drawn, folder, "aim", CAPTION["title"], CAPTION["text"])
    plt.close(drawn)
    captions = folder / "captions.json"
    store.write_json(captions, store.read_json(captions) | {"aim": CAPTION})
    return path
