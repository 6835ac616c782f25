"""Model cards say what the result files say, and nothing is uploaded that was not asked for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from mgrpo_lib.experiment import fingerprints, hub, store
from mgrpo_lib.experiment import pipeline as runner
from mgrpo_lib.experiment.settings import ROOT, ConfigError, EvalSettings, ModelSettings, TrainSettings, load_config
from mgrpo_lib.method.prompts import PHRASES

TOKEN = "hf_aSecretThatNobodyMaySee"
ARMS = {"mgrpo": {"lora_rank": 4, "load_in_4bit": True}, "grpo": {"num_layers": 1}}
SETTINGS = {"arms": ARMS, "seeds": [3], "benchmarks": ["chains", "blanks"], "control_arms": []}
REAL = {"train_data": "gsm8k", "benchmarks": ["gsm8k"]}
SCORES = {"mgrpo": (0.8125, 0.9375), "grpo": (0.75, 0.6875), "base": (0.5, 0.4375)}


@pytest.fixture
def online(monkeypatch):
    """As on a machine that may upload."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def experiment(tmp_path):
    """`experiment(**settings)`: the configuration of a finished experiment, with made-up results and models."""

    def make(evaluated: bool = True, models: bool = True, **settings):
        cfg = load_config("smoke", arm="base", output_root=str(tmp_path), **{**SETTINGS, **settings})
        for run in fingerprints.all_runs(cfg):
            finish(run, models)
            if evaluated:
                record(run)
        rows = [{"arm": arm, "benchmark": name, "n": 16 + len(name)} for arm in ARMS for name in cfg.benchmarks]
        if evaluated:
            store.write_json(cfg.results / "summary.json", {"key": fingerprints.summary_key(cfg), "rows": rows})
        store.write_text(cfg.results / "table.md", "| benchmark | arm |\n")
        return cfg

    return make


def finish(run, models: bool) -> None:
    facts = {"steps": 7, "train_tokens": 12345, "processed_tokens": 23456, "trainable_parameters": 34567}
    params = {**run.settings(ModelSettings), **run.settings(TrainSettings)}
    environment = store.environment()
    store.write_json(
        run.run_folder / "run.json",
        {"key": fingerprints.run_key(run), "arm": run.arm, "params": params, **facts, "environment": environment},
    )
    store.write_json(run.run_folder / "arguments.json", {"bf16": False, "fp16": run.load_in_4bit})
    if models:
        adapter = {"base_model_name_or_path": "/home/somebody/model", "r": run.lora_rank}
        store.write_text(run.run_folder / "model" / "README.md", "PEFT's template: [More Information Needed]\n")
        store.write_text(run.run_folder / "model" / "adapter_model.safetensors", "weights")
        if run.lora_rank:
            store.write_json(run.run_folder / "model" / "adapter_config.json", adapter)


def record(run) -> None:
    first, second = SCORES[run.arm]
    accuracy = {"chains": {"acc_t1": first, "acc_t2": second}, "blanks": {"acc_t1": second, "acc_t2": first}}
    accuracy = {name: accuracy["chains" if name == "chains" else "blanks"] for name in run.benchmarks}
    manifest = run.results / "records" / f"{run.run_name}.json"
    store.write_records(manifest, fingerprints.evaluation_key(run), [], arm=run.arm, accuracy=accuracy)


def card_of(cfg, arm: str, seed: int = 3) -> str:
    return (cfg.of_arm(arm, seed).run_folder / "model" / "README.md").read_text(encoding="utf-8")


class FakeApi:
    """Keeps what a hub would get: repositories and, as they were at that moment, the files chosen of each folder."""

    def __init__(self, fail_at: int | None = None, error: Exception | None = None):
        self.repositories, self.files, self.tokens, self.fail_at, self.error = {}, {}, [], fail_at, error

    def __call__(self, token):
        self.tokens.append(token)
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.fail_at == len(self.repositories):
            raise self.error
        self.repositories[repo_id] = {"private": private, "exist_ok": exist_ok}
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, ignore_patterns, commit_message):
        names = [path.name for path in Path(folder_path).iterdir()]
        chosen = huggingface_hub.utils.filter_repo_objects(
            names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        ignore_patterns += [".git", ".git/*"]  # as the client does
        self.files[repo_id] = {name: (Path(folder_path) / name).read_bytes() for name in chosen}

    def upload_file(self, *, repo_id, path_or_fileobj, path_in_repo, commit_message):
        self.files[repo_id][path_in_repo] = path_or_fileobj


@pytest.fixture
def api(monkeypatch, online):
    fake = FakeApi()
    monkeypatch.setattr(hub, "HfApi", fake)
    return fake


# ---------------------------------------------------------------------------------------------- cards
def test_cards_take_the_place_of_the_template_and_say_what_the_files_say(experiment):
    cfg = experiment()
    paths = hub.write_cards(cfg)
    runs = [run for run in fingerprints.all_runs(cfg) if run.arm != "base"]
    assert paths == [run.run_folder / "model" / "README.md" for run in runs] and len(paths) == 2
    card = ModelCard(card_of(cfg, "mgrpo"))
    assert "| chains | 22 | 81.2 | 93.8 | 50.0 | 43.8 |" in card.text and "| blanks | 22 | 93.8 | 81.2 | " in card.text
    measured = {(e.dataset_name, e.metric_name): e.metric_value for e in card.data.eval_results}
    assert measured == {
        (name, f"accuracy, attempt {k}"): scores[f"acc_t{k}"]
        for name, scores in store.read_json(cfg.results / "records" / "mgrpo-seed3.json")["accuracy"].items()
        for k in (1, 2)
    }
    assert (card.data.model_name, card.data.library_name) == ("mgrpo-seed3", "peft")
    for text in (
        "7 optimizer steps",
        "12,345 tokens",
        "23,456",
        "34,567",
        "float16 on the CPU",
        PHRASES[0],
        "2506.04746",
    ):
        assert text in card.text
    run = cfg.of_arm("mgrpo", 3)
    for name in TrainSettings.model_fields:
        assert f"| `{name}` | {getattr(run, name)} |" in card.text
    for version in store.environment()["packages"].values():
        assert version in card.text
    assert "training version 1, evaluation version 1" in card.text
    assert "**miniature**" in card.text and "nothing about LLMs" in card.text and "Needed]" not in card.text


def test_a_card_of_grpo_says_that_corrections_were_not_trained(experiment):
    cfg = experiment()
    hub.write_cards(cfg)
    card = ModelCard(card_of(cfg, "grpo"))
    assert card.data.library_name == "transformers" and "lora" not in card.data.tags
    assert "never trained to correct" in card.text and "PeftModel" not in card.text
    assert "| `num_corrections` |" not in card.text and "| `num_generations` |" in card.text
    assert "never trained to correct" not in card_of(cfg, "mgrpo")


def test_only_a_base_model_on_the_hub_is_named(experiment, model_folder, tmp_path):
    cfg = experiment(model="Qwen/Qwen2.5-1.5B-Instruct", **REAL)
    hub.write_cards(cfg)
    card = ModelCard(card_of(cfg, "mgrpo"))
    assert card.data.base_model == "Qwen/Qwen2.5-1.5B-Instruct" and card.data.datasets == ["openai/gsm8k"]
    assert 'base = "Qwen/Qwen2.5-1.5B-Instruct"' in card.text and "> You are a helpful AI assistant." in card.text
    assert "miniature" not in card.text.partition("## Training")[0] and card.data.license is None

    shutil.copytree(model_folder, tmp_path / "my" / "model")
    cfg = experiment(model=str(tmp_path / "my" / "model"), **REAL)
    hub.write_cards(cfg)
    card = ModelCard(card_of(cfg, "mgrpo"))
    assert card.data.base_model is None and "on model, a local folder" in card.text
    assert str(tmp_path) not in str(card) and "my/model" not in str(card)


def test_a_card_before_the_evaluation_says_so(experiment):
    cfg = experiment(evaluated=False)
    hub.write_cards(cfg)
    card = ModelCard(card_of(cfg, "mgrpo"))
    assert "**Not evaluated yet**" in card.text and card.data.eval_results is None
    assert "(evaluation)" not in card.text and "| benchmark |" not in card.text


def test_results_of_other_parameters_are_not_this_runs(experiment):
    cfg = experiment()
    where = {"arm": "base", "output_root": cfg.output_root}
    other = load_config("smoke", **SETTINGS, **where, test_problems=9)
    assert "Not evaluated yet" in hub.model_card(other.of_arm("mgrpo", 3), None)
    assert hub.write_cards(load_config("smoke", **{**SETTINGS, "seeds": [5]}, **where)) == []


def test_cards_that_hold_are_left_alone(experiment):
    cfg = experiment()
    before = [path.stat().st_mtime_ns for path in hub.write_cards(cfg)]
    assert [path.stat().st_mtime_ns for path in hub.write_cards(cfg)] == before


def test_without_trained_models_there_is_no_card_and_nothing_to_upload(experiment, api):
    cfg = experiment(models=False, push_to_hub="me/mgrpo")
    assert hub.write_cards(cfg) == [] and not list(cfg.results.rglob("README.md"))
    with pytest.raises(hub.UploadError, match="no model trained with these parameters"):
        hub.push(cfg)
    assert not api.repositories


# ---------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mgrpo", "write owner/name"),
        ("a/b/c", "write owner/name"),
        ("https://huggingface.co/me/mgrpo", "write owner/name"),
        ("/mgrpo", "owner/name"),
        ("me/", "owner/name"),
        ("me/my mgrpo", "alphanumeric"),
        ("me/../x", "owner/name"),
        ("me/a--b", "--"),
        ("me/" + "x" * 90, "96"),  # with the name of the run
        ("me/mgrpo\n", "alphanumeric"),
    ],
)
def test_a_malformed_name_is_refused(online, name, message):
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", push_to_hub=name)


def test_a_name_is_no_other_type(online):
    with pytest.raises(ConfigError, match="'push_to_hub' is True"):
        load_config("smoke", push_to_hub=True)
    with pytest.raises(ConfigError, match="my arm"):
        load_config("smoke", push_to_hub="me/mgrpo", arms={"my arm": {}}, control_arms=[], arm="base")


@pytest.mark.parametrize("token", [None, "", "  ", "hf_two words", "hf_\u00e4", "hf_line\nhf_line"])
def test_a_missing_or_broken_token_is_refused_and_not_shown(online, monkeypatch, token):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", TOKEN)  # neither another variable nor a login takes its place
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match="HF_TOKEN") as caught:
        load_config("smoke", push_to_hub="me/mgrpo")
    assert TOKEN not in str(caught.value) and "hf_" not in str(caught.value)
    assert load_config("smoke").push_to_hub == "", "without an upload no token is needed"


def test_offline_is_refused(online, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
        load_config("smoke", push_to_hub="me/mgrpo")


def test_the_command_stops_before_any_work(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    call = [sys.executable, "-m", "mgrpo_lib", "reproduce", "--profile", "smoke", "--out", str(tmp_path / "new")]
    for variables, message in (({}, "HF_TOKEN"), ({"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")):
        done = subprocess.run(
            [*call, "--params", "push_to_hub=me/mgrpo"],
            cwd=ROOT, env=environment | variables, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2 and message in done.stderr and TOKEN not in done.stdout + done.stderr
    assert not (tmp_path / "new").exists()


def test_it_is_part_of_no_key_and_of_no_result(online):
    plain, asked = load_config("cpu", arm="base"), load_config("cpu", arm="base", push_to_hub="me/mgrpo")
    keys = [
        [
            fingerprints.summary_key(cfg),
            fingerprints.experiment_key(cfg),
            fingerprints.data_key(cfg),
            fingerprints.controls_key(cfg),
        ]
        for cfg in (plain, asked)
    ]
    assert keys[0] == keys[1]
    assert "push_to_hub" not in asked.model_dump()
    for stage in (ModelSettings, TrainSettings, EvalSettings):
        assert "push_to_hub" not in stage.model_fields
    assert asked.of_arm("mgrpo", 10).push_to_hub == "me/mgrpo"


# ---------------------------------------------------------------------------------------------- the upload
def test_nothing_is_uploaded_unasked(experiment, api):
    assert hub.push(experiment()) == []
    assert not api.tokens and not api.repositories


def test_each_run_goes_to_a_private_repository_of_its_own(experiment, api, capsys):
    cfg = experiment(push_to_hub="me/mgrpo")
    folder = cfg.of_arm("mgrpo", 3).run_folder / "model"
    for stray in (".env", ".model.partial", "optimizer.pt"):
        (folder / stray).write_text(TOKEN)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}
    urls = hub.push(cfg)
    names = [f"me/mgrpo-{run.run_name}" for run in fingerprints.all_runs(cfg)[1:]]
    assert urls == [f"https://huggingface.co/{name}" for name in names] and list(api.repositories) == names
    assert all(options == {"private": True, "exist_ok": True} for options in api.repositories.values())
    assert api.tokens == [TOKEN]
    sent = api.files["me/mgrpo-mgrpo-seed3"]
    assert set(sent) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert sent["README.md"].decode() == card_of(cfg, "mgrpo") and sent["adapter_model.safetensors"] == b"weights"
    assert json.loads(sent["adapter_config.json"]) == {"base_model_name_or_path": None, "r": 4}, (
        "no path of this machine"
    )
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}
    assert set(api.files["me/mgrpo-grpo-seed3"]) == {"README.md", "adapter_model.safetensors"}
    assert not any(TOKEN.encode() in content for files in api.files.values() for content in files.values())
    assert TOKEN not in capsys.readouterr().out


def test_an_adapter_of_a_hub_model_is_uploaded_as_it_is(experiment, api):
    cfg = experiment(model="Qwen/Qwen2.5-1.5B-Instruct", push_to_hub="me/mgrpo", **REAL)
    hub.push(cfg)
    config = cfg.of_arm("mgrpo", 3).run_folder / "model" / "adapter_config.json"
    assert api.files["me/mgrpo-mgrpo-seed3"]["adapter_config.json"] == config.read_bytes()


def reproduce(monkeypatch, cfg, **settings) -> tuple[int, dict]:
    """`runner.reproduce` of an experiment that is there already; what it would hand on to the notebooks."""
    handed_on = {}
    monkeypatch.setattr(runner, "plan", lambda cfg, settings: handed_on.update(settings) or [])
    asked = {name: value for name, value in SETTINGS.items() if name != "seeds"}
    return runner.reproduce("smoke", {**asked, **settings}, seeds="3", out=cfg.output_root), handed_on


def test_what_is_there_already_is_uploaded_by_the_same_command(experiment, api, monkeypatch):
    cfg = experiment()
    assert reproduce(monkeypatch, cfg)[0] == 0 and not api.repositories
    assert "81.2" in card_of(cfg, "mgrpo"), "cards are written without being asked for"
    code, handed_on = reproduce(monkeypatch, cfg, push_to_hub="me/mgrpo")
    assert code == 0 and len(api.repositories) == 2
    assert handed_on["push_to_hub"] == "", "no notebook uploads, and none names the repository"
    written = [path.read_bytes() for path in cfg.output.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content or b"me/mgrpo" in content for content in written)


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError])
def test_a_failing_network_loses_nothing_and_says_what_to_do(experiment, online, monkeypatch, capsys, error):
    cfg = experiment()
    api = FakeApi(fail_at=1, error=error(f"no route,\nwith {TOKEN}"))
    monkeypatch.setattr(hub, "HfApi", api)
    code, _ = reproduce(monkeypatch, cfg, push_to_hub="me/mgrpo")
    said = capsys.readouterr()
    assert code == 1 and len(said.err.strip().splitlines()) == 1
    assert "me/mgrpo-grpo-seed3 failed; 1 of 2 models are uploaded" in said.err
    assert "the same command again uploads" in said.err and "no route" in said.err
    assert TOKEN not in said.err + said.out
    assert len(hub.write_cards(cfg)) == 2
    api.fail_at = None
    assert reproduce(monkeypatch, cfg, push_to_hub="me/mgrpo")[0] == 0 and len(api.repositories) == 2


def test_the_real_client_without_a_hub(experiment, online, monkeypatch):
    """The traceback that a notebook would show and keep holds no token either."""
    monkeypatch.setattr(hub, "HfApi", lambda token: huggingface_hub.HfApi("http://127.0.0.1:9", token=token))
    with pytest.raises(hub.UploadError, match="0 of 2 models are uploaded.*the same command again") as caught:
        hub.push(experiment(push_to_hub="me/mgrpo"))
    assert caught.value.__suppress_context__ and TOKEN not in str(caught.value)


def test_no_torch_is_needed():
    code = "import sys; from mgrpo_lib import hub; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
