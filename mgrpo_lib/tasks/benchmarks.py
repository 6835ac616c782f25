r"""The real benchmarks: one table of what is where, what is known to be wrong with it, and how its rows are read.

No benchmark text is kept here. A set comes from the hub at a pinned revision, or from a folder of JSON lines with the
hub's own field names; both are checked against the table, so that both give the same rows, and an altered one is refused.
Every row becomes ``question, answer, id, source`` (all text), the answer as the benchmark prints it, LaTeX included.

MATH-500 is a part of MATH's test split. OlympiadBench here is the text-only, open-ended, English, mathematical part of
its first release, 675 problems, as most papers use it; the hub's present copy has 674 (its authors withdrew one), and is known
by that number alone. Nothing is left out of a test set for being flawed, since that would be another benchmark; the flawed rows are counted and named
(`known_flaws`).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA = ("question", "answer", "id", "source")
OWN_FILE = "or name a file of your own, with columns question and answer, as train_data or in benchmarks"


@dataclass(frozen=True)
class Split:
    files: dict[str, tuple[int, str]]  # path in the folder: rows, sha256 of the file
    content: str  # `content_hash` of the rows; whatever the order
    hub_split: str
    hub_rows: int | None = None  # where the hub's copy is known to be another one; its content is then not compared


@dataclass(frozen=True)
class Benchmark:
    hub: str
    configs: tuple[str | None, ...]
    revision: str | None  # commit on the hub; those below were each found pinned in several independent public projects
    licence: str
    read: Callable[[dict], dict]  # a row as it is to question, answer and, if it has one, id
    splits: dict[str, Split]
    flaws: dict[str, Callable[[dict], bool]] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------ reading rows
def last_boxed(solution: str) -> str:
    r"""What the last ``\boxed`` of a solution holds; empty without one.

    >>> last_boxed(r"$\boxed{1}$, no, $\boxed{\left\{\frac{1}{2}\right\}}$."), last_boxed(r"so $x = \boxed 2$.")
    ('\\left\\{\\frac{1}{2}\\right\\}', '2')
    """
    _, box, rest = solution.rpartition("\\boxed")
    rest = rest.lstrip()
    if not box or not rest.startswith("{"):  # as TeX does: without braces the next character, or command, is boxed
        token = re.match(r"\\[A-Za-z]+|[^\s$]", rest) if box else None
        return token[0] if token else ""
    depth = 0
    for mark in re.finditer(r"\\.|[{}]", rest, re.DOTALL):  # \{ is a sign, not a bracket
        depth += (mark[0] == "{") - (mark[0] == "}")
        if depth == 0:
            return rest[1 : mark.start()].strip()
    return ""


def _gsm8k(raw: dict) -> dict:
    return {"question": raw["question"], "answer": raw["answer"].rpartition("####")[2].replace(",", "")}


def _math(raw: dict) -> dict:
    return {"question": raw["problem"], "answer": last_boxed(raw["solution"])}


def _math500(raw: dict) -> dict:
    return {"question": raw["problem"], "answer": raw["answer"], "id": raw["unique_id"]}


def _minerva(raw: dict) -> dict:
    return {"question": raw["question"], "answer": raw["answer"]}


def _olympiadbench(raw: dict) -> dict:
    return {"question": raw["question"], "answer": ", ".join(raw["final_answer"]), "id": raw["id"]}


def _svamp(raw: dict) -> dict:
    question = f"{raw['Body'].strip()} {raw['Question'].strip()}"
    return {"question": question, "answer": str(raw["Answer"]).strip().removesuffix(".0"), "id": raw["ID"]}


def _multiarith(raw: dict) -> dict:
    return {"question": raw["question"], "answer": str(raw["final_ans"]).strip().removesuffix(".0")}


# --------------------------------------------------------------------------------------------------------- the table
# MATH: a file, and a configuration on the hub, for each subject; with its rows and sha256
_MATH = {
    "train": """
        algebra 1744 b1b56786c86d37bcc67faac4c168e2f4fa92bc359cc7352488ce18dbbe630f4e
        counting_and_probability 771 e317cbd107d6bd727a33c1997f04e33d99833b3d5d3c5e591f92611c95f33643
        geometry 870 4ea6cdfa7f226a48b0ca372e4979d0c07b204f6e3b71ab9123431245bbce6c89
        intermediate_algebra 1295 1d59268bc71a96a189c4ac42dc4af98f544c7d67f2c0c08ca359f8e67d6feb94
        number_theory 869 cc2840e2ae7856c422fe3c5f15404e0cb8fc744f0aa5fc5c2c1c0c6a0a0a6f4e
        prealgebra 1205 970c23d7107ac04cc7c80e528b34a168c3a5014c9fcae51c18537ce555eceea0
        precalculus 746 246093a4fc1e5fa70714c620673e5f50487935cbeebd887dac2931f32c1f62da
    """,
    "test": """
        algebra 1187 e8217c87d600e3cdff05f8e91744ac7c2bee44120f2193291aca17ddb3aec727
        counting_and_probability 474 1ad8b09f381e7f947f01b7c9655ae0cfb3c33a65b1c35ba7b058e83d40e9d0d7
        geometry 479 400158f39150c3f26caba9bc24c4edc3fbbf3fb8aa490f7663f7ae53149049da
        intermediate_algebra 903 d7c1507c9c16cc279a62da3072071092d142e6d79526e790da4352e2ee08c45e
        number_theory 540 6e0ec5155b597004d8fd9012d0546d9de90438a00b98d2000161419d70cde79e
        prealgebra 871 2619a2e18656aaa2b1ed885d7565c756162c3f156c908640fe1bde34255bd002
        precalculus 546 a2847eedcdc2d88ce09df713ea5da4b2b72f5e9e9a5d4a94fc93efe89c66981e
    """,
}


def _math_files(split: str) -> dict[str, tuple[int, str]]:
    table = [line.split() for line in _MATH[split].strip().splitlines()]
    return {f"hendrycks_math/{subject}/{split}.jsonl": (int(rows), sha256) for subject, rows, sha256 in table}


SETS = {
    "gsm8k": Benchmark(
        hub="openai/gsm8k",
        configs=("main",),
        revision="740312add88f781978c0658806c59bc2815b9866",
        licence="MIT",
        read=_gsm8k,
        splits={
            "train": Split(
                {"gsm8k/train.jsonl": (7473, "6043ef64147b59871f4fd3adf669c306fe0a4c27e5a5c4bfb761f3f084895a13")},
                content="5199047e2a709476",
                hub_split="train",
            ),
            "test": Split(
                {"gsm8k/test.jsonl": (1319, "752adc99f23132275139f1f7be57126b08735a55daf0c56859ee6df70abafbac")},
                content="5d3c728f94f90095",
                hub_split="test",
            ),
        },
    ),
    "math500": Benchmark(
        hub="HuggingFaceH4/MATH-500",
        configs=(None,),
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        licence="MIT (MATH and PRM800K); problems are AoPS and MAA contest material",
        read=_math500,
        splits={
            "test": Split(
                {"math500/test.jsonl": (500, "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132")},
                content="7156baeddb14a114",
                hub_split="test",
            )
        },
    ),
    "math": Benchmark(
        hub="EleutherAI/hendrycks_math",
        configs=tuple(path.split("/")[1] for path in _math_files("test")),
        revision="21a5633873b6a120296cce3e2df9d5550074f4a3",
        licence="MIT; problems are AoPS and MAA contest material",
        read=_math,
        splits={
            "train": Split(
                _math_files("train"),
                content="5d55c19b56b65b64",
                hub_split="train",
            ),
            "test": Split(
                _math_files("test"),
                content="6a93e0750816a403",
                hub_split="test",
            ),
        },
        flaws={
            "the gold is empty; dropped": lambda raw: not last_boxed(raw["solution"]),
            "the gold's box has no braces; read all the same": lambda raw: bool(
                re.match(r"\s*[^\s{]", raw["solution"].rpartition("\\boxed")[2])
            ),
        },
    ),
    "minerva_math": Benchmark(
        hub="math-ai/minervamath",
        configs=(None,),
        revision="ee46ddc498933b1977577953250ca5c66be64f96",
        licence="not stated; taken from MIT OpenCourseWare (CC BY-NC-SA 4.0: not for commercial use)",
        read=_minerva,
        splits={
            "test": Split(
                {"minerva_math/test.jsonl": (272, "e04ec2bc1d8f80a0091b4b1989f1ffb366f3583f5bae381546a066d4ccc26e3d")},
                content="4c52b2dc11600b08",
                hub_split="test",
            )
        },
        flaws={
            "the gold is in e-notation, such as 4e33": lambda raw: bool(re.search(r"\de[+-]?\d", raw["answer"])),
            "the gold is a call of numpy": lambda raw: "np." in raw["answer"],
        },
    ),
    "olympiadbench": Benchmark(
        hub="Hothan/OlympiadBench",
        configs=("OE_TO_maths_en_COMP",),
        revision="91184b52131e7fc9455fef848035173aea8cc01a",
        licence="Apache-2.0 on the hub, MIT on GitHub",
        read=_olympiadbench,
        splits={
            "test": Split(
                {"olympiadbench/test.jsonl": (675, "bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416")},
                content="bd192db9b71829fe",
                hub_split="train",  # the hub has no other
                hub_rows=674,
            )
        },
        flaws={
            # a relay's later problems ask for "the number you will receive", which is not printed
            "cannot be solved as printed": lambda raw: bool(
                re.search(r"T ?= ?T N Y W R|you (will )?receive from position", raw["question"])
            ),
            "the gold is wrong": lambda raw: raw["id"] == 2275,
            "several answers in one gold": lambda raw: raw["is_multiple_answer"],
            "the gold lacks its unit": lambda raw: bool(raw["unit"]),
            "an error is allowed, which is not applied": lambda raw: bool(raw["error"]),
        },
    ),
    "svamp": Benchmark(
        hub="ChilleD/SVAMP",
        configs=(None,),
        revision="5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef",
        licence="MIT",
        read=_svamp,
        splits={
            "test": Split(
                {"svamp/test.jsonl": (300, "d06749abdb286853660cadf13eba47f4fb3a4c8fb4c601eedabf3bd35b4c22c9")},
                content="53a4f9552c00763c",
                hub_split="test",
            )
        },
    ),
    "multiarith": Benchmark(
        hub="ChilleD/MultiArith",
        configs=(None,),
        revision="144d44c3fb87c0b9097ac9593c789e716a282e3e",
        licence="not stated; CC BY 4.0 where Lila has it",
        read=_multiarith,
        splits={
            "test": Split(
                {"multiarith/test.jsonl": (600, "cf93a6c8b712d664af315311ad74048c3590612db4d240555d2ce41363365f5a")},
                content="324d52365a29c3e8",
                hub_split="train+test",  # the set is 600 problems; the hub's 420 and 180 are its own idea
            )
        },
    ),
}
TRAINING_SETS = [name for name, one in SETS.items() if "train" in one.splits]


# ----------------------------------------------------------------------------------------------------------- loading
def load(name: str, split: str, data_dir: str | Path | None) -> list[dict]:
    """The rows of a set, checked, without those that have no gold; see `mgrpo_lib.tasks.data.load_benchmark`."""
    return [row for _, row in _rows(name, split, data_dir) if row["answer"]]


def known_flaws(name: str, split: str, data_dir: str | Path | None) -> dict[str, list[str]]:
    """The flaws that the table knows of a set, each with the ids of the rows that have it."""
    rows = list(_rows(name, split, data_dir))
    return {flaw: [row["id"] for raw, row in rows if has(raw)] for flaw, has in SETS[name].flaws.items()}


def content_hash(rows: list[dict]) -> str:
    """A hash of the questions and answers, whatever their order and white space."""
    return _sha256("\n".join(sorted(_line(row) for row in rows)).encode())[:16]


def identity(name: str, split: str, from_hub: bool) -> str:
    """What stands for a set's content in keys: its hash; for a copy that is not compared with it, where that is from."""
    part = SETS[name].splits[split]
    return f"{SETS[name].hub}@{SETS[name].revision}" if from_hub and part.hub_rows else part.content


def in_schema(rows: Iterable[dict], name: str, source: str) -> list[dict]:
    """Rows of ``question, answer`` and perhaps ``id, solution`` in the schema: text without white space around it, and ids
    that no other row of an experiment has. They begin with the set's name; a row without an own id is named after its question,
    wherever it stands, and an id that comes again gets a number.
    """
    rows = [{key: str(value).strip() for key, value in row.items()} for row in rows]
    seen: Counter[str] = Counter()
    for row in rows:
        own = f"{name}-{row.get('id') or _sha256(row['question'].encode())[:10]}"
        seen[own] += 1
        row |= {"id": own if seen[own] == 1 else f"{own}#{seen[own]}", "source": source}
    return [{key: row[key] for key in (*SCHEMA, "solution") if key in row} for row in rows]


def _rows(name: str, split: str, data_dir: str | Path | None) -> Iterator[tuple[dict, dict]]:
    """Every row, as it is and in the schema, also one with an empty gold."""
    one, part = SETS[name], SETS[name].splits[split]
    raw = _from_hub(one, part) if data_dir is None else _from_files(part, Path(data_dir).expanduser())
    rows = in_schema(map(one.read, raw), name, f"{name}/{split}")
    found, expected = content_hash(rows), part.content
    if found != expected and not (data_dir is None and part.hub_rows == len(rows)):
        count = part.hub_rows if data_dir is None and part.hub_rows else sum(n for n, _ in part.files.values())
        raise ValueError(
            f"{name}/{split} of {one.hub} on the hub is not the set that this version knows: expected {count} rows with "
            f"content {expected}, found {len(rows)} rows with content {found}; clear the hub's cache and load it again, "
            f"set data_dir to a folder with {', '.join(part.files)}, {OWN_FILE}"
        )
    return zip(raw, rows, strict=True)


def _from_files(part: Split, folder: Path) -> list[dict]:
    rows = []
    for path, (expected, sha256) in part.files.items():
        file = folder / path
        if not file.exists():
            raise FileNotFoundError(
                f"{file} does not exist; download it, leave data_dir empty to use the hub, {OWN_FILE}"
            )
        content = file.read_bytes()
        lines = content.splitlines()
        if _sha256(content) != sha256:
            raise ValueError(
                f"{file} is truncated or altered: expected {expected} rows with sha256 {sha256[:16]}..., found "
                f"{len(lines)} rows with sha256 {_sha256(content)[:16]}...; download it again, {OWN_FILE}"
            )
        rows += map(json.loads, lines)
    return rows


def _from_hub(one: Benchmark, part: Split) -> list[dict]:
    import datasets  # takes seconds, and files do without

    try:
        parts = [datasets.load_dataset(one.hub, c, split=part.hub_split, revision=one.revision) for c in one.configs]
    except Exception as error:  # of many kinds, none of which says what to do without a hub
        raise ConnectionError(
            f"{one.hub} could not be loaded from the hub ({type(error).__name__}: {error}); set data_dir to a folder with "
            f"{', '.join(part.files)}, {OWN_FILE}"
        ) from error
    return [dict(row) for part in parts for row in part]


def _line(row: dict) -> str:
    return " ".join(row["question"].split()) + "\t" + " ".join(row["answer"].split())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
