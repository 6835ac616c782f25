"""Page through the attempts of a results folder, with what a correction changed marked. No torch, no model.

Model text is not trusted: it is escaped, rid of control characters, and cut where it is too long.
"""

import functools
import html
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from rapidfuzz.distance import Levenshtein

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.profiles import KINDS
from mgrpo_lib.experiment.settings import OUT, ROOT, from_repository, load_config, profile_names
from mgrpo_lib.method.prompts import phrase_text
from mgrpo_lib.report.tables import NAMES, name_of
from mgrpo_lib.tasks.names import nearest

TRANSITIONS = {  # right or wrong at attempt 1 and at attempt 2
    "wrong to right": (False, True),
    "right to wrong": (True, False),
    "kept right": (True, True),
    "stayed wrong": (False, False),
}
LONGEST = 4000  # characters of a text that are shown
EXAMPLES = 2  # records of each transition on a page without widgets
VIEW = "application/vnd.jupyter.widget-view+json"
COLORS = {True: "#1a7f37", False: "#b42318", None: "#666666"}
MARKS = {"del": "#ffd7d5", "ins": "#c8f0cf"}
Run = tuple[str, int | None]  # arm and seed; the base model has no seed


# ------------------------------------------------------------------------------------------------- untrusted text
def printable(text: Any) -> str:
    """Return a text without control characters, which steer terminals and turn lines, and not too long."""
    text = str(text)
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text[:LONGEST])
    return shown if len(text) <= LONGEST else f"{shown} (cut here: {len(text) - LONGEST:,} more characters)"


def escaped(text: Any) -> str:
    """Return `printable` text as HTML."""
    return html.escape(printable(text))


def differences(first: str, second: str) -> tuple[str, str]:
    """Return two texts as HTML: what the second leaves out is marked in the first, what it adds in the second.

    >>> differences("5b5*3=8", "5b5*3=5")[1]
    '5b5*3=<ins style="background:#c8f0cf;color:#111;text-decoration:none">5</ins>'
    """
    # words, numbers and single signs: the miniature writes without blanks
    parts = [re.findall(r"[^\W\d_]+|\d+|\s+|.", printable(text)) for text in (first, second)]
    out = ["", ""]
    for step in Levenshtein.opcodes(*parts):  # difflib takes minutes for long texts that repeat themselves
        ends = [(step.src_start, step.src_end), (step.dest_start, step.dest_end)]
        for side, (tag, color) in enumerate(MARKS.items()):
            text = html.escape("".join(parts[side][slice(*ends[side])]))
            if step.tag != "equal" and text:
                text = f'<{tag} style="background:{color};color:#111;text-decoration:none">{text}</{tag}>'
            out[side] += text
    return out[0], out[1]


def work_of(text: str) -> str:
    r"""Return a completion without tags and without the box that ends it: the answer is shown beside the work.

    >>> work_of("<think>7+8=5</think>\\boxed{5}")
    '7+8=5'
    """
    text = re.sub("</?think>", "", text)
    work, box, end = text.rpartition("\\boxed{")
    return work.rstrip(" \n$") if box and re.fullmatch(r"(?:[^{}]|\{[^{}]*\})*\}[\s.$]*", end) else text


def _block(head: str, text: str, color: str) -> str:
    """Return a text under its head, beside a coloured line; both are HTML."""
    pre = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font-family:monospace;unicode-bidi:isolate"
    border = f"border-left:3px solid {color};padding:2px 0 2px 10px;margin:5px 0"
    return f'<div style="{border}">{head}<pre style="{pre}">{text}</pre></div>'


def _table(rows: list[dict]) -> str:
    """Return rows as an HTML table; cells are escaped."""
    return pd.DataFrame(rows).map(printable).to_html(index=False, border=0, justify="left")


# ------------------------------------------------------------------------------------------------- attempts
@dataclass(frozen=True)
class Attempts:
    """A question and the attempts at it in order; shows itself in a notebook and in a terminal.

    Args:
        attempts: ``text, answer, tokens, truncated`` and ``correct`` of each; ``correct`` is None without a gold answer.
        phrase: what stands between an attempt and the next; None: unknown.
    """

    question: str
    attempts: list[dict[str, Any]] = field(repr=False)
    phrase: str | None = None
    gold: str | None = None

    def facts(self, number: int) -> str:
        """Return answer, verdict and length of an attempt, and whether it repeats the one before."""
        attempt = self.attempts[number - 1]
        said = "no answer" if attempt["answer"] is None else f"answer {printable(attempt['answer'])}"
        verdict = {True: "right", False: "wrong", None: ""}[attempt["correct"]]
        same = number > 1 and attempt["text"] == self.attempts[number - 2]["text"]
        length = f"{attempt['tokens']} tokens" + ", cut off at the limit" * attempt["truncated"]
        return ", ".join(part for part in (said, verdict, length, "the same text as before" * same) if part)

    def __repr__(self) -> str:
        rows = [("question", self.question)] + [("gold answer", self.gold)] * (self.gold is not None)
        for number, attempt in enumerate(self.attempts, 1):
            rows += [("phrase", self.phrase)] * bool(number > 1 and self.phrase)
            rows += [(f"attempt {number}", attempt["text"]), ("", f"-> {self.facts(number)}")]
        return "\n".join(f"{name:<12} " + printable(text).replace("\n", "\n" + 13 * " ") for name, text in rows)

    def _repr_html_(self) -> str:
        texts = [work_of(attempt["text"]) for attempt in self.attempts]
        shown = [escaped(text) for text in texts]
        for number in range(1, len(texts)):  # the first shows what is given up, the others what is new
            before, shown[number] = differences(texts[number - 1], texts[number])
            shown[0] = before if number == 1 else shown[0]
        gold = "" if self.gold is None else f" &nbsp; gold answer: <b>{escaped(self.gold)}</b>"
        parts = [_block(f"<b>question</b>{gold}", escaped(self.question), "#0b57d0")]
        for number, (attempt, text) in enumerate(zip(self.attempts, shown, strict=True), 1):
            if number > 1 and self.phrase:
                parts.append(f'<div style="margin:2px 0 2px 14px;font-style:italic">{escaped(self.phrase)}</div>')
            color = COLORS[attempt["correct"]]
            facts = f'<span style="color:{color}">{html.escape(self.facts(number))}</span>'
            parts.append(_block(f"<b>attempt {number}</b> {facts}", text, color))
        # what looks like a formula in a model's text is not typeset
        return f'<div class="tex2jax_ignore mathjax_ignore" style="max-width:60em">{"".join(parts)}</div>'


def side_by_side(records: list[dict]) -> HTML:
    """Show both attempts of each record as a table row: work and answer apart, changes marked, right answers green.

    Args:
        records: as `mgrpo_lib.experiment.evaluate.two_attempts` makes them; ``model`` and ``benchmark`` are shown, too.
    """
    rows = []
    for record in records:
        row = {name: escaped(record[name]) for name in ("model", "benchmark", "question") if name in record}
        row["gold"] = escaped(record["gold"])
        for k, work in enumerate(differences(work_of(record["text_1"]), work_of(record["text_2"])), 1):
            answer = "none" if record[f"answer_{k}"] is None else escaped(record[f"answer_{k}"])
            row[f"attempt {k}"] = (
                f'<div style="text-align:left;white-space:pre-wrap;font-family:monospace">{work}</div>'
            )
            row[f"answer {k}"] = f'<b style="color:{COLORS[bool(record[f"correct_{k}"])]}">{answer}</b>'
        rows.append(row)
    with pd.option_context("display.max_colwidth", None):
        table = pd.DataFrame(rows).to_html(index=False, border=0, justify="left", escape=False)
    return HTML(f'<div class="tex2jax_ignore mathjax_ignore">{table}</div>')


def group_html(group: dict) -> str:
    """Return sampled first attempts as the group that GRPO compares: answers, rewards, advantages."""
    rewards = pd.Series(group["correct_1"], dtype=float)
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    columns = {
        "answer": ["-" if answer is None else answer for answer in group["answer_1"]],
        "reward r": [f"{reward:.0f}" for reward in rewards],
        "advantage A": [f"{advantage:+.2f}" for advantage in advantages],
        "tokens": group["tokens_1"],
        "after its correction": ["-" if answer is None else answer for answer in group["answer_2"]],
        "reward": [f"{right:d}" for right in group["correct_2"]],
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return (
        f"<details><summary><b>{len(rows)} attempts at this problem, sampled at temperature 1</b></summary>"
        f"{_table(rows)}<p>A = (r &minus; mean) / (std + 10<sup>&minus;4</sup>). These are samples of the trained model at "
        "test; nothing was trained on them. A draft with one correction has no group, so layer 2 has no advantage here."
        "</p></details>"
    )


# ------------------------------------------------------------------------------------------------- result files
def results_folder(results: str | Path) -> Path:
    """Return the results folder that a path or a profile names.

    Raises:
        FileNotFoundError: it holds no records; the message names the profiles that have some.
    """
    folder = Path(results).expanduser()
    if not (folder / "records").is_dir() and (str(results) in profile_names() or folder.suffix in KINDS):
        folder = load_config(str(results), arm="base").at_hand("records").results
    if not any(folder.glob("records/*.json")):
        found = {
            path.parts[-3] for root in (ROOT, from_repository(OUT)) for path in root.glob("results/*/records/*.json")
        }
        raise FileNotFoundError(
            f"no records in {folder / 'records'}; give a results folder, or a profile that has records here "
            f"({nearest(str(results), sorted(found))}), or run one: make reproduce PROFILE=smoke"
        )
    return folder


def _read(manifest: Path) -> list[dict]:
    """Return a manifest's records, if they have its digest."""
    return store.read_records(manifest, store.read_json(manifest)["key"])


def _chosen(kind: str, wanted: Any, valid: list, default: Any) -> Any:
    if wanted is None:
        return default
    if wanted not in valid:
        raise ValueError(f"no {kind} {wanted!r} in these results; {nearest(str(wanted), [str(one) for one in valid])}")
    return wanted


class Explorer:
    """Page through every attempt of an experiment: choose run, benchmark and transition.

    In a notebook it shows widgets, and plain HTML where the viewer has no widgets. In a terminal, print it.

    Args:
        results: a results folder, or a profile, for its results in ``out`` or else the committed ones.
        arm, seed, benchmark, transition: what is shown first. By default MGRPO, its first seed, the test set where most
            is fixed, and all of `TRANSITIONS`.

    Raises:
        FileNotFoundError: no records are there.
        ValueError: the arm, seed, benchmark or transition does not occur (the message names the nearest one), or
            records do not belong to their manifest.
    """

    def __init__(
        self,
        results: str | Path,
        arm: str | None = None,
        seed: int | None = None,
        benchmark: str | None = None,
        transition: str | None = None,
    ):
        self.folder, found = results_folder(results), {}
        self._records = functools.lru_cache(maxsize=8)(_read)
        for path in sorted((self.folder / "records").glob("*.json")):
            manifest = store.read_json(path)
            found[manifest["arm"], manifest["seed"]] = path
        order = [*NAMES, *(arm for arm, _ in found)]
        self.runs: dict[Run, Path] = {
            run: found[run] for run in sorted(found, key=lambda r: (order.index(r[0]), r[1] or 0))
        }
        summary = self.folder / "summary.json"
        self.phrase = phrase_text(store.read_json(summary)["params"]["eval_phrase"]) if summary.exists() else None
        arms = list(dict.fromkeys(arm for arm, _ in self.runs))
        arm = _chosen("arm", arm, arms, "mgrpo" if "mgrpo" in arms else arms[-1])
        seeds = [number for other, number in self.runs if other == arm]
        self.run: Run = (arm, _chosen("seed", seed, seeds, seeds[0]))
        names = self.benchmarks(self.run)
        fixed = {name: self.counts(self.run, name)["wrong to right"] for name in names}
        self.benchmark = _chosen("benchmark", benchmark, names, max(names, key=fixed.get))
        self.transition = _chosen("transition", transition, list(TRANSITIONS), None)

    # ---------------------------------------------------------------------------------------- what is there
    def records(self, run: Run) -> list[dict]:
        """Return a run's records, as `mgrpo_lib.experiment.evaluate.two_attempts` makes them, each with its benchmark."""
        return self._records(self.runs[run])

    def benchmarks(self, run: Run) -> list[str]:
        return list(dict.fromkeys(record["benchmark"] for record in self.records(run)))

    def select(self, run: Run, benchmark: str, transition: str) -> list[dict]:
        """Return the records of a run and benchmark that made a transition."""
        wanted = (benchmark, *TRANSITIONS[transition])
        return [one for one in self.records(run) if (one["benchmark"], one["correct_1"], one["correct_2"]) == wanted]

    def counts(self, run: Run, benchmark: str) -> dict[str, int]:
        return {name: len(self.select(run, benchmark, name)) for name in TRANSITIONS}

    def first_transition(self) -> str:
        """Return the transition that was asked for, or else the first that any problem made."""
        counts = self.counts(self.run, self.benchmark)
        return self.transition or next(name for name, count in counts.items() if count)

    def group(self, run: Run, record: dict) -> dict | None:
        """Return the sampled attempts at a record's problem, as `mgrpo_lib.experiment.controls.sample` stores them."""
        manifest = self.folder / "samples" / self.runs[run].name
        place = (record["benchmark"], record["id"])
        rows = self._records(manifest) if manifest.exists() else []
        return next((row for row in rows if (row["benchmark"], row["id"]) == place), None)

    # ---------------------------------------------------------------------------------------- what is shown
    def name(self, run: Run) -> str:
        return name_of(run[0]) + ("" if run[1] is None else f", seed {run[1]}")

    def attempts(self, record: dict) -> Attempts:
        """Return both attempts of a record."""
        fields = ("text", "answer", "correct", "tokens", "truncated")
        both = [{name: record[f"{name}_{k}"] for name in fields} for k in (1, 2)]
        return Attempts(record["question"], both, self.phrase, record["gold"])

    def page(self, run: Run, record: dict) -> str:
        """Return a record as HTML: both attempts and, where samples were stored, their group with its advantages."""
        group = self.group(run, record)
        under = "<p><i>No samples are stored for this problem: no group, so no advantages.</i></p>"
        head = f'<div style="color:#666666">{escaped(record["benchmark"])}, {escaped(record["id"])}</div>'
        return head + self.attempts(record)._repr_html_() + (under if group is None else group_html(group))

    def _repr_html_(self) -> str:
        """Return the page without widgets: counts, and examples of each transition or of the chosen one."""
        rows = [{"benchmark": name, **self.counts(self.run, name)} for name in self.benchmarks(self.run)]
        parts = [f"<h4>{escaped(self.folder.name)}, {escaped(self.name(self.run))}</h4>", _table(rows)]
        shown = 5 * EXAMPLES if self.transition else EXAMPLES
        for name in [self.transition] if self.transition else TRANSITIONS:
            records = self.select(self.run, self.benchmark, name)
            pages = "<hr>".join(self.page(self.run, record) for record in records[:shown])
            title = f"{escaped(self.benchmark)}, {name}: {min(shown, len(records))} of {len(records)}"
            parts.append(f"<details open><summary><b>{title}</b></summary>{pages}</details>")
        return "".join(parts)

    def __repr__(self) -> str:
        counts = self.counts(self.run, self.benchmark)
        said, name = ", ".join(f"{name} {count}" for name, count in counts.items()), self.first_transition()
        head = printable(f"{self.folder.name}, {self.name(self.run)}, {self.benchmark}: {said}")
        first = self.select(self.run, self.benchmark, name)[:1]
        return "\n".join([head, *(f"\n{name}:\n{self.attempts(record)!r}" for record in first)])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if importlib.util.find_spec("ipywidgets") is not None:
            from mgrpo_lib.explore.panel import Panel

            bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": Panel(self).box.model_id}
        return bundle


explore = Explorer  # reads as a call in a notebook
