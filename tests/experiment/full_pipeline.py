"""Run by `test_pipeline.py` in a mount namespace of its own: `reproduce` where nothing, or little, can be written, and then
again with room.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path


def mount(place: Path, options: str) -> Path:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    return place


def reproduce(folder: Path) -> tuple[int, str, list[str]]:
    """Exit status, what it said, and what it left that is not whole."""
    call = [
        sys.executable,
        "-m",
        "mgrpo_lib",
        "reproduce",
        "--profile",
        "smoke",
        "--workers",
        "1",
        "--out",
        str(folder),
    ]
    done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200)
    torn = [str(path) for pattern in ("*.partial*", "*.running.ipynb") for path in folder.rglob(pattern)]
    return done.returncode, done.stdout, torn


def main(finished: Path, out: Path) -> None:
    """Write what each call came to.

    Args:
        finished: folder of a finished pipeline.
    """
    found = {"closed": reproduce(mount(out / "closed", "ro"))}
    small = mount(out / "small", "size=40M")
    filler, copy = small / "filler", small / "copy"
    shutil.copytree(finished, copy)

    def fill(room: int) -> None:
        filler.write_bytes(b"x" * (shutil.disk_usage(small).free - room))

    fill(room=0)
    found["full from the start"] = reproduce(small / "new")
    filler.unlink()
    for name in ("01_data", "00_overview"):
        (copy / "results" / "smoke" / "runs" / f"{name}.ipynb").unlink()
    fill(room=600_000)  # enough for the first, and too little for the figures of the second
    found["no room for a notebook"] = reproduce(copy)
    filler.unlink()
    found["room again"] = reproduce(copy)
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
