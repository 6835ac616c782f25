"""The schema of every problem set: rows of text with question, answer, id and source, some with a worked solution."""

import hashlib
from collections import Counter
from collections.abc import Iterable

SCHEMA = ("question", "answer", "id", "source")


def in_schema(rows: Iterable[dict], name: str, source: str) -> list[dict]:
    """Bring rows of question and answer, some with id and solution, into the schema.

    Texts lose the white space around them. An id begins with the set's name, so that it is unique in an experiment. A row
    without an id gets one from its question, whatever its position. A repeated id gets a number.
    """
    rows = [{key: str(value).strip() for key, value in row.items()} for row in rows]
    seen: Counter[str] = Counter()
    for row in rows:
        own = f"{name}-{row.get('id') or hashlib.sha256(row['question'].encode()).hexdigest()[:10]}"
        seen[own] += 1
        row |= {"id": own if seen[own] == 1 else f"{own}#{seen[own]}", "source": source}
    return [{key: row[key] for key in (*SCHEMA, "solution") if key in row} for row in rows]


def content_hash(rows: list[dict]) -> str:
    """Hash the questions and answers, regardless of order and white space."""
    lines = sorted("\t".join(" ".join(row[key].split()) for key in ("question", "answer")) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def fingerprint(rows: list[dict]) -> str:
    """Hash the questions and answers in their order."""
    return hashlib.sha256("\n".join(f"{row['question']}\t{row['answer']}" for row in rows).encode()).hexdigest()[:12]
