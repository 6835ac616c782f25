"""Agreement of the verifier with labelled completions, and what is known to be wrong with their labels: `make agreement`.

    python tests/verifier/agreement.py FILE.jsonl[.gz] [--table docs/verifier.md]

The file holds rows of ``gold, completion, label`` and perhaps ``benchmark``. Printed are the agreement, overall and per
benchmark, every disagreement and the completions a second, by `python -m mgrpo_lib.verifier.reward`; then the same once more without
the rows whose labels are known to be wrong. The table has the numbers and the reasons, but no text of a benchmark.
"""

import argparse
import gzip
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.verifier import reward as rewards

GRADED = ROOT.parent / "shared" / "data" / "graded_outputs" / "graded.jsonl.gz"
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


@dataclass
class Row:
    digest: str
    benchmark: str
    label: bool
    verdict: bool
    box: bool  # whether the completion has one

    @property
    def agrees(self) -> bool:
        return self.label == self.verdict

    @property
    def what(self) -> str:
        return f"the verifier says {'right' if self.verdict else 'wrong'}, {'a box' if self.box else 'no box'}"


def load(path: Path) -> list[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def judge(rows: list[dict]) -> list[Row]:
    """The rows without their texts, with the verifier's verdicts."""
    verdicts = rewards.accuracy_reward([row["completion"] for row in rows], [row["gold"] for row in rows])
    return [
        Row(
            digest(row), row.get("benchmark", "all"), bool(row["label"]), verdict == 1.0, r"\boxed" in row["completion"]
        )
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def digest(row: dict) -> str:
    return hashlib.sha256(row["completion"].encode()).hexdigest()[:12]


def share(rows: list[Row]) -> str:
    right = sum(row.agrees for row in rows)
    return f"{right} of {len(rows)} ({right / max(1, len(rows)):.3%})"


def table(rows: list[Row], report: str) -> str:
    kept = [row for row in rows if row.digest not in WRONG_LABELS]
    names = sorted({row.benchmark for row in rows})
    wrong = [row for row in rows if not row.agrees]
    speed = re.search(r"(\d+) completions a second; (without a verdict: .*)", report)
    lines = [
        "# The verifier beside labelled completions",
        "",
        f"Written by `make agreement` (`tests/verifier/agreement.py`): {len(rows):,} completions of language models with gold answers, "
        "each labelled right or wrong by its publisher, judged by `mgrpo_lib.verifier.reward`. The file is no part of "
        "the project; rows are named by the first digits of the completion's SHA-256.",
        "",
        f"With all labels as they are {share(rows)} agree; without the rows whose labels are wrong (below), {share(kept)}. "
        f"{speed[1]} completions a second on one core; {speed[2]}.",
        "",
        "| benchmark | agree, all rows | agree, without wrong labels |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {share([row for row in rows if row.benchmark == name])} "
            f"| {share([row for row in kept if row.benchmark == name])} |"
            for name in names
        ),
        f"| all | {share(rows)} | {share(kept)} |",
        "",
        "## Labels that are wrong",
        "",
        "Only rows in which label and verdict differ were read, so a wrong label that the verifier shares is not among them, and "
        "the share without these rows is the most favourable one.",
        "",
        "| row | benchmark | why the label is wrong |",
        "| --- | --- | --- |",
        *(
            f"| `{row.digest}` | {row.benchmark} | {WRONG_LABELS[row.digest]} |"
            for row in rows
            if row.digest in WRONG_LABELS
        ),
        "",
        "## All disagreements",
        "",
        "| row | benchmark | what | label known to be wrong |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{row.digest}` | {row.benchmark} | {row.what} | {'yes' if row.digest in WRONG_LABELS else 'no'} |"
            for row in wrong
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("file", type=Path, nargs="?", default=GRADED, help="labelled completions, .jsonl or .jsonl.gz")
    parser.add_argument("--table", type=Path, help="where the table goes, in Markdown")
    given = parser.parse_args()
    if not given.file.exists():
        print(
            f"there is no file {given.file}; give one with rows of gold, completion, label and perhaps benchmark: "
            "make agreement DATA=labelled.jsonl[.gz]",
            file=sys.stderr,
        )
        return 2
    call = [sys.executable, "-m", "mgrpo_lib.verifier.reward", str(given.file)]
    report = subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(report, end="")
    rows = judge(load(given.file))
    kept = [row for row in rows if row.digest not in WRONG_LABELS]
    print(f"without {len(rows) - len(kept)} rows whose labels are wrong: {share(kept)} agree")
    if given.table:
        given.table.parent.mkdir(exist_ok=True)
        given.table.write_text(table(rows, report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
