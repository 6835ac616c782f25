"""Stamp README and every notebook with the repository's name: the badge "Open in Colab" and the set-up cell.

The name stands in pyproject.toml, [project.urls]; `make badges REPO=owner/name` changes it there and everywhere.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BRANCH = "main"
PLACE = r'(?m)^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"$'
LINK = r"(https://colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(/blob/)"
BADGE = r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)"
SETUP = """\
# @title Set-up: run this cell first
import os
import subprocess
import sys
from importlib.util import find_spec

if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules:
    folder = os.environ.get("MGRPO_HOME", "/content/mgrpo")
    clone = ["git", "clone", "--quiet", "https://github.com/REPOSITORY", folder]
    if not os.path.exists(os.path.join(folder, "tools", "colab.py")) and subprocess.run(clone).returncode:
        fix = "put a copy of the repository on Drive and set os.environ['MGRPO_HOME'] to its folder (docs/colab.md)"
        raise SystemExit(f"{clone[3]} could not be cloned; the line above says why. If it is not published: {fix}")
    sys.path.insert(0, os.path.join(folder, "tools"))
    import colab

    colab.set_up()
elif not (find_spec("mgrpo_lib") and find_spec("trl")):
    fix = "choose the kernel of .venv (.venv/bin/python in the repository), or open the notebooks with make lab"
    raise SystemExit(f"this kernel, {sys.executable}, lacks the library: {fix}")"""


def repository(root: Path = ROOT) -> str:
    """Return the name, as ``owner/name``."""
    return re.search(PLACE, (root / "pyproject.toml").read_text(encoding="utf-8")).group(1)


def badge(name: str, notebook: str) -> str:
    colab = "https://colab.research.google.com"
    link = f"{colab}/github/{name}/blob/{BRANCH}/notebooks/{notebook}.ipynb"
    return f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({link})"


def stamp_notebook(path: Path, name: str) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title, *rest = notebook["cells"]
    heading, body = re.sub(BADGE + "\n\n", "", "".join(title["source"])).split("\n\n", 1)
    title["source"] = f"{heading}\n\n{badge(name, path.stem)}\n\n{body}".splitlines(keepends=True)
    setup = {
        "cell_type": "code",
        "execution_count": None,
        "id": f"{path.stem[:2]}-colab",
        # folded in Colab, in JupyterLab and on the pages
        "metadata": {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]},
        "outputs": [],
    }
    setup["source"] = SETUP.replace("REPOSITORY", name).splitlines(keepends=True)
    notebook["cells"] = [title, setup, *(cell for cell in rest if cell["id"] != setup["id"])]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def stamp(root: Path = ROOT, name: str = "") -> str:
    """Stamp everything and return the name; ``name`` replaces the one in pyproject.toml."""
    if name:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise SystemExit(f"error: REPO is {name!r}; write it as owner/name")
        place = root / "pyproject.toml"
        line = f'Repository = "https://github.com/{name}"'
        place.write_text(re.sub(PLACE, line, place.read_text(encoding="utf-8")), encoding="utf-8")
    name = repository(root)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        stamp_notebook(path, name)
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(re.sub(LINK, rf"\g<1>{name}\g<2>", text), encoding="utf-8")
    return name


if __name__ == "__main__":
    print(f"badges and set-up cells name {stamp(name=''.join(sys.argv[1:2]))}")
