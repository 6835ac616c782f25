"""Which questions two sets share, and the cleaning and sampling of a training set.

A training set is cleaned before anything is drawn from it. Its rows are then ordered by a hash of the question. So
neither their order in a file nor the size of a sample changes which question belongs where.
"""

import hashlib
import re

NGRAM = 13  # words; the length of GPT-3's decontamination (arXiv 2005.14165), and of many since


def as_one(question: str) -> str:
    """Return a question without case and white space; two are the same if this is."""
    return "".join(question.lower().split())


def ngrams(question: str, n: int = NGRAM, signs: bool = True) -> set[tuple[str, ...]]:
    """Return the runs of `n` words, numbers and signs of a question, without case; a shorter one is one run.

    Args:
        question: any text.
        n: length of a run.
        signs: False: only words and numbers count, and no drawings, as is usual for texts. With signs, a third of MATH shares
            13 pieces of LaTeX with its test split. A question shorter than `n` words always keeps its signs, since 2 + 2
            is not 2 - 2.

    >>> sorted(ngrams("Two plus 2.", 3))
    [('plus', '2', '.'), ('two', 'plus', '2')]
    >>> ngrams("Two plus 2.", 3, signs=False)
    {('two', 'plus', '2')}
    """
    tokens = re.findall(r"[^\W\d_]+|\d+|[^\w\s]", question.lower())
    if not signs:
        text = re.sub(r"\[asy\].*?\[/asy\]", " ", question.lower(), flags=re.DOTALL)
        words = re.findall(r"[^\W\d_]+|\d+", text)
        tokens = words if len(words) >= n else tokens
        n = n if len(words) >= n else len(tokens)
    return {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


def runs_of(rows: list[dict], n: int = NGRAM, signs: bool = True) -> set[tuple[str, ...]]:
    """Return the `ngrams` of all questions."""
    return set().union(*(ngrams(row["question"], n, signs) for row in rows))


def contaminated(train: list[dict], held_out: list[dict], n: int = NGRAM, signs: bool = True) -> list[str]:
    """Return the ids of the held-out questions that share a run of `n` words with any training question; see `ngrams`."""
    seen = runs_of(train, n, signs)
    return [row["id"] for row in held_out if not seen.isdisjoint(ngrams(row["question"], n, signs))]


def clean(rows: list[dict], tests: dict[str, list[dict]]) -> tuple[list[dict], dict[str, int]]:
    """Drop the rows that come twice, and those that share a run of `NGRAM` words with a test set.

    Args:
        rows: a training set.
        tests: whole test sets by name, however many of their problems are used.

    Returns:
        The rows that are left, and the number dropped for each reason: ``twice``, or a test set's name. A row may have several
        reasons.
    """
    seen = {name: runs_of(test, signs=False) for name, test in tests.items()}
    kept, dropped = {}, dict.fromkeys(["twice", *tests], 0)
    for row in rows:
        own, whole = ngrams(row["question"], signs=False), as_one(row["question"])
        reasons = [name for name in tests if not seen[name].isdisjoint(own)] or ["twice"] * (whole in kept)
        for name in reasons:
            dropped[name] += 1
        if not reasons:
            kept[whole] = row
    return list(kept.values()), dropped


def shuffled(rows: list[dict], seed: int = 0) -> list[dict]:
    """Shuffle rows into an order that does not depend on the one that they come in."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{' '.join(row['question'].split())}".encode()).digest())
