"""Lines about a running training: seldom, with the time to go, and a state for the pipeline."""

import types

import pytest
from transformers import TrainerControl, TrainerState

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.progress import Progress
from mgrpo_lib.experiment.settings import load_config
from mgrpo_lib.experiment.watch import Lines


class Clock:
    """A clock that a test turns on."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def entry(step: int, layers: int = 2) -> dict:
    """What the trainer logs of a step, as far as it is shown."""
    one = {"reward": 0.25, "frac_reward_zero_std": 0.5, "completions/mean_length": 20.0}
    two = {"layer2/reward": 0.75, "layer2/fixed": 0.4, "layer2/broken": 0.1, "layer2/completions/mean_length": 30.0}
    return {"loss": 0.0, "generated_tokens": 1000 * step, "step": step, **one, **(two if layers == 2 else {})}


def run(callback, clock: Clock, steps: range, max_steps: int, seconds: float = 1.0, layers: int = 2) -> None:
    """Let a callback see steps of a training, each `seconds` long."""
    args, control = types.SimpleNamespace(max_steps=max_steps), TrainerControl()
    state = TrainerState(global_step=steps[0] - 1)
    state.log_history = [entry(step, layers) for step in range(1, steps[0])]
    callback.on_train_begin(args, state, control)
    for step in steps:
        clock.seconds += seconds
        state.global_step = step
        state.log_history.append(entry(step, layers))
        callback.on_log(args, state, control, logs=state.log_history[-1])
    state.log_history.append({"train_runtime": 1.0, "step": state.global_step})
    callback.on_log(args, state, control, logs=state.log_history[-1])
    callback.on_train_end(args, state, control)


@pytest.fixture
def cfg(tmp_path):
    return load_config("smoke", seed=0, output_root=str(tmp_path))


def test_a_line_holds_all_numbers_and_the_state_is_written(cfg, capsys):
    clock = Clock()
    run(Lines(cfg, None, now=clock), clock, range(1, 101), max_steps=100)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    for part in (
        "step 20/100",
        "reward 0.25",
        "0.75",
        "fixed 0.40",
        "broken 0.10",
        "20 and 30",
        "1,000 tokens/s",
        "1:20",
    ):
        assert part in lines[0]
    state = store.read_json(cfg.results / "progress" / "mgrpo-seed0.json")
    assert (state["step"], state["total"], state["to_go"]) == (100, 100, 0.0)


def test_the_time_to_go_is_told_from_some_share_on_and_neither_a_slow_start_nor_a_pause_counts(tmp_path):
    clock, lines, told = Clock(), [], {}
    progress = Progress(tmp_path / "state.json", 100, every=0, show=lines.append, now=clock)
    for step in range(1, 101):
        clock.seconds += {1: 60.0, 20: 30.0}.get(step, 2.0)  # it warms up, and writes a checkpoint
        progress.update(step)
        told[step] = store.read_json(tmp_path / "state.json")["to_go"]
    assert told == {step: None if step < 5 else 2.0 * (100 - step) for step in told}
    assert "from step 5" in lines[3] and "3:10 to go" in lines[4]


def test_what_an_earlier_process_did_tells_nothing(tmp_path):
    clock = Clock()
    progress = Progress(tmp_path / "state.json", 40, done=36, show=lambda _: None, now=clock)
    for step in range(37, 40):
        clock.seconds += 2.0
        progress.update(step)
        assert progress.to_go(step) is None
    progress.update(40)
    assert store.read_json(tmp_path / "state.json")["to_go"] == 0.0


@pytest.mark.parametrize(("budget", "steps", "printed"), [(49_400, 50, 4), (49_600, 49, 3)])
def test_a_token_budget_tells_the_end_and_ends_with_a_line(cfg, capsys, budget, steps, printed):
    """1000 tokens a step, so the end is one step later or earlier than it seemed on the way."""
    clock = Clock()
    run(Lines(cfg, budget, now=clock), clock, range(1, steps + 1), max_steps=4000, layers=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"step 20/{round(budget / 1000)} ")
    assert lines[-1].startswith(f"step {steps}/{steps} ") and len(lines) == printed


def test_a_resumed_run_counts_its_own_speed(cfg, capsys):
    clock = Clock()
    run(Lines(cfg, None, now=clock), clock, range(31, 41), max_steps=40, seconds=2.0)
    assert "500 tokens/s" in capsys.readouterr().out
