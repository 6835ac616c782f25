"""The method can be taken away: it imports no other room, and trains with torch, transformers, trl, peft, accelerate."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

METHOD = Path(__file__).parents[2] / "mgrpo_lib" / "method"
LIBRARIES = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "bitsandbytes"}
LIBRARIES |= {"jinja2"}  # of chat templates; torch requires it
MODULES = sorted(path.stem for path in METHOD.glob("*.py"))


def imports(module: str) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((METHOD / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
            assert node.level == 0
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_the_method_imports_no_other_room_and_few_libraries(module):
    for name in imports(module):
        root = name.split(".")[0]
        assert name.startswith("mgrpo_lib.method.") or root in LIBRARIES | sys.stdlib_module_names, name


@pytest.mark.parametrize("module", ["settings", "prompts", "logged"])
def test_settings_and_prompts_need_no_torch(module):
    code = f"import sys, mgrpo_lib.method.{module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=tiny.environment(), capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "trl", "numpy", "pydantic"} & set(done.stdout.split())


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What trainings did in a process in which the rest of the project cannot be imported."""
    work = tmp_path_factory.mktemp("alone")
    call = [sys.executable, str(Path(__file__).with_name("alone.py")), str(work)]
    done = subprocess.run(call, env=tiny.environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return json.loads((work / "report.json").read_text())


def test_both_trainers_train_without_the_rest_of_the_project(report):
    for kind in ("MGRPOTrainer", "AlternatingTrainer"):
        assert {"reward", "layer2/reward", "layer2/fixed", "layer2/edit_distance"} <= report[kind].keys()
        assert "layer2/answer_changed" not in report[kind]
    rooms = {name.split(".")[1] for name in report["imported"] if "." in name}
    assert rooms == {"method"}


def test_the_guard_works_without_it(report):
    assert report["skips"] == {"moved": [True, False], "skipped": [2]}


@pytest.mark.parametrize(
    ("kind", "named"), [("memory", ["per_device_train_batch_size", "LoRA"]), ("disk", ["save_steps", "output_dir"])]
)
def test_memory_and_disk_are_explained_and_checkpoints_are_whole_without_it(kind, named, report):
    found = report[kind]
    assert found["kind"] == kind and all(name in found["text"] for name in [*named, "checkpoint-1"])
    assert found["left"] == ["checkpoint-1"] and found["whole"] == "checkpoint-1" and not found["unfinished"]
