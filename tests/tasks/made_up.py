"""Benchmarks with the Hub's field names and made-up problems, and the table adapted to them."""

import hashlib
import json
from pathlib import Path

from mgrpo_lib.tasks import benchmarks
from mgrpo_lib.tasks.schema import content_hash, in_schema

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"  # the real benchmarks, where they are at hand
N = 30  # rows of each file
SPLITS = [(name, split) for name, one in benchmarks.SETS.items() for split in one.splits]

# row number -> a row
ROWS = {
    "gsm8k": lambda i: {"question": f"Ann has {i} pears and buys 1000.", "answer": f"She has more.\n#### {1000 + i:,}"},
    "math": lambda i: {
        "problem": f"Compute ${i}+1$.",
        "solution": f"It is $\\boxed{{0}}$, no: $\\boxed{{\\frac{{{i + 1}}}{{1}}}}$.",
    },
    "math500": lambda i: {"problem": f"Compute ${i}+2$.", "answer": f"{i + 2}", "unique_id": f"test/algebra/{i}.json"},
    "minerva_math": lambda i: {"question": f"How heavy is star {i}?", "answer": f"{i}.5e33" if i < 2 else f"{i}"},
    "olympiadbench": lambda i: {
        "id": i,
        "question": "Let $T=T N Y W R$. Find $T$." if i == 0 else f"Find $x={i}$.",
        "final_answer": [f"${i}$"],
        "is_multiple_answer": i == 1,
        "unit": "km" if i == 2 else None,
        "error": None,
    },
    "svamp": lambda i: {
        "ID": f"chal-{i}",
        "Body": f"A dog has {i} bones. ",
        "Question": "How many?",
        "Answer": f"{i}.0",
    },
    "multiarith": lambda i: {"question": f"Bob had {i // 2} toys. How many?", "final_ans": f"{i // 2}"},
}


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def own(path: Path, rows: list[dict]) -> str:
    """Write a file of one's own."""
    path.write_bytes(lines(rows))
    return str(path)


def make_folder(folder: Path, monkeypatch) -> Path:
    """Fill a folder as `data_dir` must be, and adapt the table to it."""
    for name, one in benchmarks.SETS.items():
        splits = {}
        for split, part in one.splits.items():
            files, rows = {}, []
            for k, path in enumerate(part.files):
                raw = [ROWS[name](i) for i in range(k * N, (k + 1) * N)]
                if path == "hendrycks_math/algebra/train.jsonl":
                    raw[0]["solution"], raw[1]["solution"] = "Hence $\\boxed{}$.", "so $x = \\boxed 2$."
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(lines(raw))
                files[path] = (N, hashlib.sha256(lines(raw)).hexdigest())
                rows += raw
            content = content_hash(in_schema(map(benchmarks._READ[name], rows), name, name))
            splits[split] = part.model_copy(update={"files": files, "content": content})
        monkeypatch.setitem(benchmarks.SETS, name, one.model_copy(update={"splits": splits}))
    return folder
