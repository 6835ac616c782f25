"""Nothing in library and tools runs text or code that it reads: no eval, no shell, no pickle, no code from the hub."""

import ast

import pytest

from mgrpo_lib.experiment.settings import ROOT

FILES = sorted([*(ROOT / "mgrpo_lib").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
NEVER = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
NEVER |= {f"{module}.{name}" for module in ("pickle", "dill", "cloudpickle", "marshal") for name in ("load", "loads")}
NEVER |= {"pickle.Unpickler", "joblib.load", "pandas.read_pickle", "yaml.unsafe_load", "yaml.full_load"}
NEVER |= {"yaml.unsafe_load_all", "yaml.full_load_all"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}


def names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for, in full."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.asname: one.name for one in node.names if one.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def unsafe(source: str) -> list[str]:
    """Calls in a source that could run what they read, each with its line."""
    tree, found = ast.parse(source), []
    known = names(tree)

    def full(node: ast.expr) -> str:
        first, dot, rest = ast.unparse(node).partition(".")
        return (known.get(first, first) + dot + rest).removeprefix("builtins.")

    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, given = full(call.func), {keyword.arg: keyword.value for keyword in call.keywords}
        values = {key: ast.unparse(value) for key, value in given.items() if key}
        loaders = [full(value) for value in [*call.args[1:2], *(given[key] for key in ("Loader",) if key in given)]]
        if (
            name in NEVER
            or (name in ("yaml.load", "yaml.load_all") and not set(loaders) & SAFE_LOADERS)
            or (name == "torch.load" and values.get("weights_only") != "True")
            or values.get("shell", "False") != "False"
            or name in ("subprocess.getoutput", "subprocess.getstatusoutput")
            or values.get("trust_remote_code", "False") != "False"
            or values.get("allow_pickle", "False") != "False"
        ):
            found.append(f"line {call.lineno}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize(
    "call",
    [
        "eval('1')",
        "import builtins; builtins.exec('1')",
        "import os; os.system('ls')",
        "from os import system as run; run('ls')",
        "import pickle; pickle.load(file)",
        "import pickle as p; p.loads(data)",
        "from pickle import loads; loads(data)",
        "import yaml; yaml.load(text)",
        "import yaml; yaml.load(text, Loader=yaml.Loader)",
        "import torch; torch.load(file)",
        "import torch; torch.load(file, weights_only=False)",
        "import subprocess; subprocess.run('ls', shell=True)",
        "from subprocess import Popen; Popen('ls', shell=maybe)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "import numpy as np; np.load(file, allow_pickle=True)",
    ],
)
def test_an_unsafe_call_is_found(call):
    assert len(unsafe(call)) == 1


def test_safe_calls_are_none():
    calls = ["model.eval()", "re.compile('a')", "ast.literal_eval('1')", "yaml.safe_load(text)", "json.load(file)"]
    calls += [
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "torch.load(file, weights_only=True)",
        "run(['ls'], shell=False)",
    ]
    assert unsafe("\n".join(calls)) == []


def test_library_and_tools_run_nothing_that_they_read():
    assert len(FILES) > 40
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: calls for name, calls in found.items() if calls} == {}
