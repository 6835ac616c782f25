"""Runs the tests with the newest packages that pyproject.toml allows, in an environment that is thrown away afterwards: what
fails there is what the next lock will have to deal with. `--dry-run` only says which versions pip would take.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from packaging.utils import canonicalize_name  # noqa: E402

from tools.colab import pinned  # noqa: E402
from tools.lock import declared, of_the_lock  # noqa: E402

NEEDED_GB = 6  # with torch's CUDA packages


def changes(taken: dict[str, str], locked: dict[str, str]) -> list[str]:
    """In which packages pip's choice differs from the lock."""
    lines = [
        f"{name} {locked.get(name, 'not locked')} -> {taken[name]}"
        for name in sorted(taken)
        if taken[name] != locked.get(name)
    ]
    return lines + [
        f"{name} {locked[name]} -> not needed on this Python" for name in sorted(locked.keys() - taken.keys())
    ]


def main(dry: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        free = shutil.disk_usage(folder).free / 1e9
        if not dry and free < NEEDED_GB:
            sys.exit(
                f"newest: only {free:.0f} GB are free in {folder} and {NEEDED_GB} are needed; set TMPDIR to a larger disk"
            )
        venv.create(folder, with_pip=True)
        python, report = str(Path(folder) / "bin" / "python"), Path(folder) / "report.json"
        install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--upgrade"]
        print("newest: asking pip for the newest versions (minutes) ...", flush=True)
        if subprocess.run([*install, *(["--dry-run"] if dry else []), "--report", str(report), *declared()]).returncode:
            sys.exit("newest: pip could not install them; its message is above (network? proxy? disk?)")
        installed = [entry["metadata"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"]]
        taken = {canonicalize_name(one["name"]): one["version"].split("+")[0] for one in installed}
        different = changes({name: version for name, version in taken.items() if of_the_lock(name)}, pinned())
        print("\n".join(different or ["the lock has the newest versions already"]))
        if dry:
            return 0
        # the library itself is read from here; the tests of the lock are about other versions
        paths = {"PYTHONPATH": str(ROOT), "PATH": os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])}
        tests = [python, "-m", "pytest", "--ignore", "tests/repository/test_lock.py"]
        return subprocess.run(tests, cwd=ROOT, env={**os.environ, **paths}).returncode


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--dry-run"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:] == ["--dry-run"]))
