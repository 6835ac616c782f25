"""A look at single attempts: pages through the records of any results folder, with what changed between two attempts
marked. Widgets where ipywidgets is installed; the same page as plain HTML is in every output, for viewers without
them. No torch, no model.

What a model wrote is not trusted: it is escaped, rid of control characters, and cut where it is too long to look at.
"""

import difflib
import functools
import html
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import ROOT, profile_names
from mgrpo_lib.method.prompts import phrase_text
from mgrpo_lib.report.statistics import group_advantages
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
UNTRAINED = "untrained"  # the base model's seed in a menu, where None would mean that nothing is chosen
VIEW = "application/vnd.jupyter.widget-view+json"
COLORS = {True: "#1a7f37", False: "#b42318", None: "#666666"}
FORMULA = "A<sub>i</sub> = (r<sub>i</sub> &minus; mean(r)) / (std(r) + 10<sup>&minus;4</sup>), std with n &minus; 1"


# ------------------------------------------------------------------------------------------------- untrusted text
def printable(text: Any) -> str:
    """A text without control characters, which could steer a terminal or turn the direction of a page; the first
    `LONGEST` characters of it.
    """
    shown = str(text)[:LONGEST]
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in shown)


def escaped(text: Any) -> str:
    """`printable` as HTML."""
    return html.escape(printable(text))


def cut_note(text: str) -> str:
    """What is said of the rest of a text that is too long; empty for others."""
    return f"(cut here: {len(text) - LONGEST:,} more characters)" if len(text) > LONGEST else ""


def differences(first: str, second: str) -> tuple[str, str]:
    """Two texts as HTML, with what the second leaves out marked in the first, and what it adds in the second.

    >>> differences("5b5*3=8", "5b5*3=5")
    ('5b5*3=<del style="background:#ffd7d5;color:#111;text-decoration:none">8</del>', '5b5*3=<ins style="background:#c8f0cf;color:#111;text-decoration:none">5</ins>')
    """
    # words, numbers and single signs: the miniature writes without blanks
    parts = [re.findall(r"[^\W\d_]+|\d+|\s+|.", printable(text)) for text in (first, second)]
    out: tuple[list[str], list[str]] = ([], [])
    marks = (("del", "#ffd7d5"), ("ins", "#c8f0cf"))
    for what, *ends in difflib.SequenceMatcher(None, *parts, autojunk=False).get_opcodes():
        for side, (tag, color) in enumerate(marks):
            start, end = ends[2 * side : 2 * side + 2]
            text = html.escape("".join(parts[side][start:end]))
            if what != "equal" and text:
                text = f'<{tag} style="background:{color};color:#111;text-decoration:none">{text}</{tag}>'
            out[side].append(text)
    return "".join(out[0]), "".join(out[1])


# ------------------------------------------------------------------------------------------------- attempts
@dataclass(frozen=True)
class Attempts:
    """A question and the attempts at it, one after the other; shows itself in a notebook and in a terminal.

    Args:
        attempts: ``text, answer, tokens, truncated`` of each and ``correct``, None where there is no gold answer.
        phrase: what stands between an attempt and the next; None: it is not known.
    """

    question: str
    attempts: list[dict[str, Any]] = field(repr=False)
    phrase: str | None = None
    gold: str | None = None

    def __repr__(self) -> str:
        rows = [("question", printable(self.question))] + [("gold answer", printable(self.gold))] * (
            self.gold is not None
        )
        for number, attempt in enumerate(self.attempts, 1):
            if number > 1 and self.phrase:
                rows.append(("phrase", printable(self.phrase)))
            note = cut_note(attempt["text"])
            rows.append((f"attempt {number}", f"{printable(attempt['text'])} {note}".rstrip()))
            rows.append(("", f"-> {self._facts(number)}"))
        return "\n".join(f"{name:<12} " + text.replace("\n", "\n" + 13 * " ") for name, text in rows)

    def _facts(self, number: int) -> str:
        """An attempt in a few words: its answer, the verdict, its length, whether it repeats the one before."""
        attempt = self.attempts[number - 1]
        said = "no answer" if attempt["answer"] is None else f"answer {printable(attempt['answer'])}"
        verdict = {True: "right", False: "wrong", None: ""}[attempt["correct"]]
        same = number > 1 and attempt["text"] == self.attempts[number - 2]["text"]
        length = f"{attempt['tokens']} tokens" + ", cut off at the limit" * attempt["truncated"]
        return ", ".join(part for part in (said, verdict, length, "the same text as before" * same) if part)

    def _repr_html_(self) -> str:
        texts = [attempt["text"] for attempt in self.attempts]
        shown = [escaped(text) for text in texts]
        for number in range(1, len(texts)):  # the first shows what is given up, the others what is new
            before, shown[number] = differences(texts[number - 1], texts[number])
            shown[0] = before if number == 1 else shown[0]
        gold = f" &nbsp; gold answer: <b>{escaped(self.gold)}</b>" if self.gold is not None else ""
        parts = [_text(escaped(self.question), cut_note(self.question), "#0b57d0", f"<b>question</b>{gold}")]
        for number, (attempt, text) in enumerate(zip(self.attempts, shown, strict=True), 1):
            if number > 1 and self.phrase:
                parts.append(f'<div style="margin:2px 0 2px 14px;font-style:italic">{escaped(self.phrase)}</div>')
            color = COLORS[attempt["correct"]]
            head = f'<b>attempt {number}</b> <span style="color:{color}">{html.escape(self._facts(number))}</span>'
            parts.append(_text(text, cut_note(attempt["text"]), color, head))
        # no typesetting of what looks like a formula in a model's text
        return f'<div class="tex2jax_ignore mathjax_ignore" style="max-width:60em">{"".join(parts)}</div>'


def _text(content: str, note: str, color: str, head: str) -> str:
    """A block of text under a line; `content` and `head` are HTML."""
    pre = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font-family:monospace;unicode-bidi:isolate"
    note = f" <i>{note}</i>" if note else ""
    border = f"border-left:3px solid {color};padding:2px 0 2px 10px;margin:5px 0"
    return f'<div style="{border}">{head}<pre style="{pre}">{content}{note}</pre></div>'


# ------------------------------------------------------------------------------------------------- result files
def results_folder(results: str | Path) -> Path:
    """The folder of results that a path or a profile names.

    Raises:
        FileNotFoundError: no records are there; with the mend.
    """
    folder = Path(results).expanduser()
    if not (folder / "records").is_dir() and str(results) in profile_names():
        folder = ROOT / "results" / str(results)
    if not any(folder.glob("records/*.json")):
        raise FileNotFoundError(
            f"no records in {folder / 'records'}; give a results folder or a profile that has been run "
            f"({nearest(str(results), profile_names())}), or run one: make reproduce PROFILE=smoke"
        )
    return folder


@functools.lru_cache(maxsize=8)
def _records(manifest: Path, digest: str) -> list[dict]:
    """The records of a manifest, read once for each content.

    Raises:
        ValueError: they are not those that the manifest speaks of.
    """
    return store.read_records(manifest, store.read_json(manifest)["key"])


def _read(manifest: Path) -> list[dict]:
    return _records(manifest, store.read_json(manifest)["digest"])


class Explorer:
    """Every attempt of an experiment, to be paged through: choose arm, seed, benchmark and transition.

    The last line of a notebook's cell shows it: as widgets where ipywidgets and the viewer have them, and else as HTML
    with the first records; in a terminal print it.

    Args:
        results: a results folder, or the profile whose results are in the repository.
        arm, seed, benchmark, transition: what is shown first. By default MGRPO, its first seed, the test set where most
            wrong answers were mended, and all transitions (`TRANSITIONS`).
        widgets: False: the plain page alone, for a notebook that is saved as HTML and read without its kernel.

    Raises:
        FileNotFoundError: no records are there.
        ValueError: an arm, seed, benchmark or transition that is not there, with those that are; or records that are
            not those of their manifest.

    Attributes:
        runs: the manifest of each run's records, by arm and seed (None: the base model).
        arm, seed, benchmark, transition: what is shown first; transition None: all four.
    """

    def __init__(
        self,
        results: str | Path,
        arm: str | None = None,
        seed: int | None = None,
        benchmark: str | None = None,
        transition: str | None = None,
        widgets: bool = True,
    ):
        self.widgets = widgets
        self.folder, found = results_folder(results), {}
        for path in sorted((self.folder / "records").glob("*.json")):
            manifest = store.read_json(path)
            found[manifest["arm"], manifest["seed"]] = path
        arms = dict.fromkeys(arm for arm, _ in found)
        self.arms = [arm for arm in NAMES if arm in arms] + [arm for arm in arms if arm not in NAMES]
        self.runs = {place: found[place] for place in sorted(found, key=lambda p: (self.arms.index(p[0]), p[1] or 0))}
        summary = self.folder / "summary.json"
        params = store.read_json(summary)["params"] if summary.exists() else {}
        self.phrase = phrase_text(params["eval_phrase"]) if params else None
        self.arm = _chosen("arm", arm, self.arms, "mgrpo" if "mgrpo" in self.arms else self.arms[-1])
        self.seed = _chosen("seed", seed, self.seeds(self.arm), self.seeds(self.arm)[0])
        names = self.benchmarks(self.arm, self.seed)
        mended = {name: self.counts(self.arm, self.seed, name)["wrong to right"] for name in names}
        self.benchmark = _chosen("benchmark", benchmark, names, max(names, key=mended.get))
        self.transition = _chosen("transition", transition, list(TRANSITIONS), None)

    # ---------------------------------------------------------------------------------------- what is there
    def seeds(self, arm: str) -> list[int | None]:
        return [seed for other, seed in self.runs if other == arm]

    def records(self, arm: str, seed: int | None) -> list[dict]:
        """The records of a run, as `mgrpo_lib.experiment.evaluate.two_attempts` made them, each with its ``benchmark``."""
        return _read(self.runs[arm, seed])

    def benchmarks(self, arm: str, seed: int | None) -> list[str]:
        return list(dict.fromkeys(record["benchmark"] for record in self.records(arm, seed)))

    def select(self, arm: str, seed: int | None, benchmark: str, transition: str) -> list[dict]:
        """The records of one run and benchmark whose attempts were right or wrong as the transition says."""
        return [
            record
            for record in self.records(arm, seed)
            if record["benchmark"] == benchmark
            and (record["correct_1"], record["correct_2"]) == TRANSITIONS[transition]
        ]

    def counts(self, arm: str, seed: int | None, benchmark: str) -> dict[str, int]:
        return {name: len(self.select(arm, seed, benchmark, name)) for name in TRANSITIONS}

    def group(self, arm: str, seed: int | None, record: dict) -> dict | None:
        """The sampled attempts at a record's problem, as `mgrpo_lib.experiment.controls.sample` stored them; None if there are none."""
        manifest = self.folder / "samples" / self.runs[arm, seed].name
        if not manifest.exists():
            return None
        places = ((row["benchmark"], row["id"]) for row in _read(manifest))
        return dict(zip(places, _read(manifest), strict=True)).get((record["benchmark"], record["id"]))

    def first_transition(self) -> str:
        """The transition that was asked for; without, the first that any problem made."""
        counts = self.counts(self.arm, self.seed, self.benchmark)
        return self.transition or next(name for name, count in counts.items() if count)

    # ---------------------------------------------------------------------------------------- what is shown
    def attempts(self, record: dict) -> Attempts:
        """Both attempts of a record."""
        fields = ("text", "answer", "correct", "tokens", "truncated")
        both = [{name: record[f"{name}_{k}"] for name in fields} for k in (1, 2)]
        return Attempts(record["question"], both, self.phrase, record["gold"])

    def page(self, arm: str, seed: int | None, record: dict) -> str:
        """One record as HTML: both attempts, and the sampled group with its advantages where samples were stored."""
        group = self.group(arm, seed, record)
        under = "Only greedy attempts are stored of this problem: no group, so no advantages."
        head = f'<div style="color:#666666">{escaped(record["benchmark"])}, {escaped(record["id"])}</div>'
        return (
            head
            + self.attempts(record)._repr_html_()
            + (f"<p><i>{under}</i></p>" if group is None else group_html(group))
        )

    def counts_html(self, arm: str, seed: int | None) -> str:
        """How many problems of each benchmark made which transition."""
        rows = []
        for name in self.benchmarks(arm, seed):
            counts = self.counts(arm, seed, name).values()
            rows.append([escaped(name), *map(str, counts), str(sum(counts))])
        return _table(["benchmark", *TRANSITIONS, "problems"], rows)

    def _repr_html_(self) -> str:
        """The page without widgets: counts, and the first records of each transition, or more of the chosen one."""
        place = f"{escaped(self.folder.name)}, {escaped(name_of(self.arm))}" + (
            "" if self.seed is None else f", seed {self.seed}"
        )
        parts = [f"<h4>{place}</h4>", self.counts_html(self.arm, self.seed)]
        shown = 5 * EXAMPLES if self.transition else EXAMPLES
        for name in [self.transition] if self.transition else TRANSITIONS:
            records = self.select(self.arm, self.seed, self.benchmark, name)
            pages = "<hr>".join(self.page(self.arm, self.seed, record) for record in records[:shown])
            title = f"{escaped(self.benchmark)}, {name}: {min(shown, len(records))} of {len(records)}"
            parts.append(f"<details open><summary><b>{title}</b></summary>{pages}</details>")
        return "".join(parts)

    def __repr__(self) -> str:
        counts = self.counts(self.arm, self.seed, self.benchmark)
        said, name = ", ".join(f"{name} {count}" for name, count in counts.items()), self.first_transition()
        head = f"{self.folder.name}, {name_of(self.arm)}, seed {self.seed}, {self.benchmark}: {said}"
        first = self.select(self.arm, self.seed, self.benchmark, name)[:1]
        return "\n".join([head, *(f"\n{name}:\n{self.attempts(record)!r}" for record in first)])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self.widgets and importlib.util.find_spec("ipywidgets") is not None:
            bundle[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.widget().model_id}
        return bundle

    def widget(self):
        """The choices and the page as a widget (`ipywidgets.VBox`)."""
        return _Panel(self).box


class _Panel:
    """The widgets of an explorer. What is chosen on the left decides what can be chosen on its right."""

    def __init__(self, explorer: Explorer):
        import ipywidgets as widgets

        self.explorer, self.busy = explorer, False
        widths = {"arm": "24em", "seed": "12em", "benchmark": "18em", "transition": "20em"}
        self.arm, self.seed, self.benchmark, self.transition = (
            widgets.Dropdown(description=name, layout=widgets.Layout(width=width)) for name, width in widths.items()
        )
        self.number = widgets.BoundedIntText(
            value=1, min=1, max=1, description="record", layout=widgets.Layout(width="11em")
        )
        self.total, self.counts, self.page = widgets.Label(), widgets.HTML(), widgets.HTML()
        back, forth = (
            widgets.Button(description=name, layout=widgets.Layout(width="6em")) for name in ("back", "next")
        )
        back.on_click(lambda _: self.turn(-1))
        forth.on_click(lambda _: self.turn(1))
        choices = [self.arm, self.seed, self.benchmark, self.transition]
        wrap = widgets.Layout(flex_flow="row wrap")
        self.box = widgets.VBox(
            [
                widgets.Box(choices, layout=wrap),
                self.counts,
                widgets.HBox([self.number, self.total, back, forth]),
                self.page,
            ]
        )
        self.arm.options = [(name_of(arm), arm) for arm in explorer.arms]
        self.arm.value = explorer.arm
        self.refresh(explorer.seed, explorer.benchmark, explorer.first_transition())
        for choice in choices:
            choice.observe(
                lambda _: self.refresh(self.seed.value, self.benchmark.value, self.transition.value), "value"
            )
        self.number.observe(lambda _: self.show(), "value")

    def refresh(self, seed: int | None, benchmark: str, transition: str) -> None:
        """What can be chosen with this arm, as near as can be to what was chosen, from its first record on."""
        if self.busy:  # a choice that this function itself changes
            return
        self.busy = True
        explorer, seeds = self.explorer, self.explorer.seeds(self.arm.value)
        self.seed.options = [("-", UNTRAINED) if one is None else (str(one), one) for one in seeds]
        self.seed.value = seed if seed in seeds and seed is not None else self.seed.options[0][1]
        place = self.place()
        self.benchmark.options = names = explorer.benchmarks(*place)
        self.benchmark.value = benchmark if benchmark in names else names[0]
        counts = explorer.counts(*place, self.benchmark.value)
        self.transition.options = [(f"{name} ({count})", name) for name, count in counts.items()]
        self.transition.value = transition
        self.counts.value = explorer.counts_html(*place)
        self.number.max = max(1, counts[transition])
        self.number.value = 1
        self.busy = False
        self.show()

    def place(self) -> tuple[str, int | None]:
        """Arm and seed."""
        return self.arm.value, None if self.seed.value == UNTRAINED else self.seed.value

    def turn(self, pages: int) -> None:
        self.number.value = min(max(self.number.value + pages, 1), self.number.max)

    def show(self) -> None:
        if self.busy:
            return
        place = self.place()
        records = self.explorer.select(*place, self.benchmark.value, self.transition.value)
        self.total.value = f"of {len(records)}"
        self.page.value = (
            self.explorer.page(*place, records[self.number.value - 1])
            if records
            else "<p>No problem made this transition.</p>"
        )


explore = Explorer  # reads as a call in a notebook


def _chosen(kind: str, wanted: Any, valid: Sequence, default: Any) -> Any:
    if wanted is None:
        return default
    if wanted not in valid:
        raise ValueError(f"no {kind} {wanted!r} in these results; {nearest(str(wanted), [str(one) for one in valid])}")
    return wanted


# ------------------------------------------------------------------------------------------------- groups
def group_html(group: dict) -> str:
    """Sampled first attempts as the group that GRPO would compare: answers, rewards, advantages. Each has one correction,
    so those make no group of a draft, and no advantage.
    """
    rewards = [float(right) for right in group["correct_1"]]
    advantages = group_advantages([rewards])[0]
    rows = [
        [
            str(i + 1),
            "-" if group["answer_1"][i] is None else escaped(group["answer_1"][i]),
            f"{rewards[i]:.0f}",
            f"{advantages[i]:+.2f}",
            str(group["tokens_1"][i]),
            "-" if group["answer_2"][i] is None else escaped(group["answer_2"][i]),
            f"{group['correct_2'][i]:.0f}",
        ]
        for i in range(len(rewards))
    ]
    head = [
        "i",
        "answer",
        "reward r<sub>i</sub>",
        "advantage A<sub>i</sub>",
        "tokens",
        "after its correction",
        "reward",
    ]
    same = "All rewards are equal, so nothing would be learnt from this group. " if len(set(rewards)) == 1 else ""
    return (
        f"<details><summary><b>{len(rewards)} attempts at this problem, sampled at temperature 1</b></summary>"
        f"{_table(head, rows)}<p>{FORMULA}. {same}These are samples of the test, of the trained model, and nothing was "
        "trained on them; with one correction of each draft there is no group of corrections, so no advantage of layer 2."
        "</p></details>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table; cells are HTML."""
    style = 'style="text-align:left;padding:1px 14px 1px 0"'  # a widget's page has no styles of a notebook's tables
    cells = "".join(f"<th {style}>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td {style}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
