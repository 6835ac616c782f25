"""Agreement of the verifier with labelled completions, and what is known to be wrong with their labels: `make agreement`.

    python -m tests.verifier.agreement [FILE.jsonl[.gz]] [--table docs/verifier.md]

The file holds rows of ``gold, completion, label`` and perhaps ``benchmark``. Printed are the agreement, overall and per benchmark,
and every disagreement. The table has the numbers and the reasons, but no text of a benchmark.
"""

import argparse
import gzip
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mgrpo_lib.verifier import reward

GRADED = Path(__file__).resolve().parents[3] / "shared" / "data" / "graded_outputs" / "graded.jsonl.gz"
# labels that are wrong, by the first 12 digits of the completion's SHA-256
WRONG_LABELS = {
    "002ef8bc1123": 'labelled wrong, but it states the gold word in plain text, after "the final answer is"',
    "ac003c20c795": 'labelled wrong, but it states the gold word, in quotes, after "the final answer is"',
    "a9a34a1245cc": 'labelled wrong, but it states the gold letter, in round brackets, after "the correct answer is"',
    **dict.fromkeys(
        ["78872fea3e2e", "08470d59436a", "b0a1eb9c57d9"],
        "labelled wrong, but the time in its box is the gold one, with less of it inside of the text command",
    ),
    "c52ceb3f8cbf": "labelled wrong, but the trigonometric sum in its box has exactly the gold number's value, if not its form",
}
HEAD = """# The verifier beside labelled completions

Written by `make agreement`. {rows:,} completions of language models, each labelled right or wrong by its publisher, are judged by
`mgrpo_lib.verifier`. The file is no part of the project. A row is named by the first digits of its completion's SHA-256.

With all labels {all} agree; without the rows whose labels are wrong (below), {kept}. Comparisons without a verdict: {failures}.

| benchmark | agree, all rows | agree, without wrong labels |
| --- | --- | --- |
{benchmarks}

## Disagreements

Only rows in which label and verdict differ were read. A wrong label that the verifier shares is not among them.

| row | benchmark | the verifier says | why the label is wrong, if it is |
| --- | --- | --- | --- |
{disagreements}
"""


@dataclass
class Row:
    digest: str
    benchmark: str
    label: bool
    verdict: bool
    box: bool  # whether the completion has one
    what: str  # answer and gold, for the screen alone

    @property
    def agrees(self) -> bool:
        return self.label == self.verdict


def load(path: Path) -> list[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def judge(rows: list[dict]) -> list[Row]:
    """Give each labelled completion the verifier's verdict."""
    judged = []
    for row, verdict in zip(
        rows, reward.accuracy_reward(*([r[key] for r in rows] for key in ("completion", "gold"))), strict=True
    ):
        text = row["completion"]
        digest, what = (
            hashlib.sha256(text.encode()).hexdigest()[:12],
            f"{reward.extract_answer(text)!r} to {row['gold']!r}",
        )
        judged.append(
            Row(digest, row.get("benchmark", "all"), bool(row["label"]), verdict == 1.0, r"\boxed" in text, what)
        )
    return judged


def share(rows: list[Row]) -> str:
    right = sum(row.agrees for row in rows)
    return f"{right} of {len(rows)} ({right / max(1, len(rows)):.3%})"


def sound(rows: list[Row]) -> list[Row]:
    """Return the rows whose labels are not known to be wrong."""
    return [row for row in rows if row.digest not in WRONG_LABELS]


def table(rows: list[Row]) -> str:
    """Return docs/verifier.md."""
    groups = [[row for row in rows if row.benchmark == name] for name in sorted({row.benchmark for row in rows})]
    benchmarks = [f"| {group[0].benchmark} | {share(group)} | {share(sound(group))} |" for group in groups]
    disagreements = [
        f"| `{row.digest}` | {row.benchmark} | {'right' if row.verdict else 'wrong'}, {'a box' if row.box else 'no box'} | {WRONG_LABELS.get(row.digest, '')} |"
        for row in rows
        if not row.agrees
    ]
    return HEAD.format(
        rows=len(rows),
        all=share(rows),
        kept=share(sound(rows)),
        failures=dict(reward.failures) or 0,
        benchmarks="\n".join(benchmarks),
        disagreements="\n".join(disagreements),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("file", type=Path, nargs="?", default=GRADED, help="labelled completions, .jsonl or .jsonl.gz")
    parser.add_argument("--table", type=Path, help="where the table goes, in Markdown")
    given = parser.parse_args()
    if not given.file.exists():
        what = "rows of gold, completion, label and perhaps benchmark"
        print(
            f"there is no file {given.file}; give one with {what}: make agreement DATA=labelled.jsonl[.gz]",
            file=sys.stderr,
        )
        return 2
    start = time.perf_counter()
    rows = judge(load(given.file))
    for number, row in enumerate(rows):
        if not row.agrees:
            print(
                f"{'FP' if row.verdict else 'FN'} row {number} ({row.benchmark}, {'box' if row.box else 'no box'}): {row.what}"
            )
    for name in sorted({row.benchmark for row in rows}):
        print(f"{name}: {share([row for row in rows if row.benchmark == name])} agree")
    print(
        f"overall: {share(rows)} agree; without {len(rows) - len(sound(rows))} rows whose labels are wrong: {share(sound(rows))}"
    )
    print(
        f"{len(rows) / (time.perf_counter() - start):.0f} completions a second; without a verdict: {dict(reward.failures) or 0}"
    )
    if given.table:
        given.table.parent.mkdir(exist_ok=True)
        given.table.write_text(table(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
