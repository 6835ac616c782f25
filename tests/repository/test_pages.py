"""README and docs/: links resolve, and the trainer in README trains."""

import os
import re
import subprocess
import sys

import pytest

from mgrpo_lib.experiment.settings import ROOT
from mgrpo_lib.method.logged import BESIDE, METRICS
from mgrpo_lib.method.settings import MGRPOSettings

PAGES = ("README.md", "ANALYSIS.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = (ROOT / page).parent / name if name else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_trainer_of_readme_trains(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code += "\nassert trainer.state.global_step == args.max_steps\n"
    code += "assert any('layer2/reward' in entry for entry in trainer.state.log_history)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=300)


def test_the_signs_of_a_bad_training_are_metrics_and_settings():
    """A name that is no longer logged or set fails here."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").split("## Metrics")[0]
    rows = [
        [re.findall(r"`(.*?)`", cell) for cell in row.split(" | ")]
        for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    ]
    rows = [row for row in rows if row[1]]
    assert len(rows) == 10
    named = {name.removeprefix("layer2/").partition("=")[0] for row in rows for cell in row for name in cell}
    assert named - {*METRICS, *BESIDE, *MGRPOSettings.__dataclass_fields__} == {"\\boxed{}", "'mixed'", "'wrong'"}
