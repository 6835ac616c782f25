"""The tests' own rules."""

import subprocess

from conftest import made_anew


def test_results_made_anew_are_named_and_a_folder_without_git_has_none(tmp_path):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    for name in ("results/cpu/summary.json", "results/smoke/summary.json", "docs/robustness.md", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed")
    assert made_anew(tmp_path) == []
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    assert made_anew(tmp_path) == []
    for name in ("results/cpu/summary.json", "docs/robustness.md", "README.md", "results/cpu/new.json"):
        (tmp_path / name).write_text("anew")
    assert made_anew(tmp_path) == ["docs/robustness.md", "results/cpu"]
