"""The equations of the advantages: equal to TRL's numbers, to sums by hand, and the ones that the trainer uses."""

import pytest
import tiny
import torch
from tiny import Recording, generate
from trl import GRPOTrainer

from mgrpo_lib.method import advantages
from mgrpo_lib.method.advantages import difference_advantages, group_advantages, progress_advantages

NAN = torch.nan


def uneven(completions, **kwargs):
    """Real numbers that no sum is exact for."""
    return [len(text) / 7 + text.count("a") / 3 for text in completions]


def some(completions, **kwargs):
    """No reward for two of five."""
    return [None if hash_of(text) % 5 < 2 else float(hash_of(text) % 7) / 7 for text in completions]


def hash_of(text: str) -> int:
    return sum(map(ord, text))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("group", [2, 3, 8])
@pytest.mark.parametrize("reward", [tiny.parity, uneven, some])
def test_group_advantages_are_trls_to_the_bit(reward, group, scale, make, monkeypatch):
    """TRL's own trainer, with rewards that are missing too: its batch's advantages from its rewards."""
    rewards, grade = [], GRPOTrainer._calculate_rewards
    monkeypatch.setattr(
        GRPOTrainer, "_calculate_rewards", lambda *given: rewards.append(grade(*given)) or rewards[-1].clone()
    )
    options = {"num_generations": group, "per_device_train_batch_size": 24, "scale_rewards": scale}
    trainer = make(GRPOTrainer, reward=reward, **options)
    trainer.model.train()
    batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    assert rewards[0].shape == (24, 1) and bool(rewards[0].isnan().any()) == (reward is some)
    assert torch.equal(group_advantages(rewards[0][:, 0], group, scale), batch["advantages"])
    assert not batch["advantages"].isnan().any() and batch["advantages"].any()


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("rewards", [tiny.parity, [uneven, some]], ids=["one reward", "two rewards, some missing"])
def test_the_trainer_has_trls_numbers_in_both_layers(rewards, scale, make):
    weights = {"reward_weights": [1.0, 0.3]} if isinstance(rewards, list) else {}
    trainer = generate(make(Recording, reward=rewards, num_corrections=3, scale_rewards=scale, **weights))
    for number, size in ((1, 4), (2, 3)):
        found = group_advantages(trainer.layers[number].all_rewards, size, scale)
        assert found.any() and torch.equal(found, trainer.of_trl[number])
        assert torch.equal(found, trainer.batches[number]["advantages"])


@pytest.mark.parametrize("rule", ["group", "difference", "progress"])
def test_the_trainer_calls_the_functions_that_the_notebooks_show(rule, sampled, monkeypatch):
    monkeypatch.setattr(advantages, f"{rule}_advantages", lambda rewards, *given: torch.full_like(rewards, 2.5))
    trainer = sampled(correction_advantage=rule)
    assert trainer.batches[2]["advantages"].tolist() == list(trainer._logs["advantages"])[-12:] == [2.5] * 12


def test_group_advantages_by_hand():
    rewards = torch.tensor([1.0, 0, 0, 1, 3, 4, 5, NAN, 2, 2, 2, 2, NAN, NAN, NAN, NAN])
    found = group_advantages(rewards, 4, "none").tolist()
    assert found == [0.5, -0.5, -0.5, 0.5, -1, 0, 1, 0] + [0] * 8
    half = 0.5 / ((1 / 3) ** 0.5 + 1e-4)
    scaled = group_advantages(rewards, 4).tolist()
    assert scaled == pytest.approx([half, -half, -half, half, -1 / 1.0001, 0, 1 / 1.0001, 0] + [0] * 8)
    assert group_advantages(torch.tensor([1.0, 0.0]), 1).tolist() == [0, 0], "a group of one has no baseline"


def test_difference_by_hand():
    rewards, drafts = torch.tensor([1.0, 0, 1, 0, NAN, 1]), torch.tensor([0.0, 0, 1, 1, 0, NAN])
    assert difference_advantages(rewards, drafts).tolist() == [1, 0, 0, -1, 0, 0]


def test_progress_by_hand():
    rewards, questions = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.zeros(4, dtype=torch.long)
    # two drafts of one question: fixing (last) is worth more than keeping (first), breaking less than staying wrong
    drafts = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert progress_advantages(rewards, drafts, questions, 10.0, "none").tolist() == [0.5, -10.5, -0.5, 10.5]
    std = torch.tensor([1.0, -10.0, 0.0, 11.0]).std().item()
    scaled = progress_advantages(rewards, drafts, questions, 10.0).tolist()
    assert scaled == pytest.approx([one / (std + 1e-4) for one in (0.5, -10.5, -0.5, 10.5)])
    for r1 in (0.0, 1.0):  # within one draft the bonus does nothing
        one = progress_advantages(rewards, torch.full((4,), r1), questions, 10.0)
        assert one.tolist() == pytest.approx(group_advantages(rewards, 4).tolist(), abs=1e-3)


@pytest.mark.parametrize("rule", [difference_advantages, progress_advantages])
def test_a_row_without_a_reward_has_no_advantage_and_is_in_no_mean(rule):
    rewards = torch.tensor([1.0, NAN, 0.0, 1.0, 0.0, 1.0, NAN])  # the last a filler
    drafts = torch.tensor([0.0, 0.0, 0.0, NAN, 1.0, 0.0, 0.0])
    questions = torch.tensor([0, 0, 0, 0, 0, 1, -1])
    rest = (questions, 2.0) if rule is progress_advantages else ()
    rows = torch.tensor([0, 2, 4])
    some_rest = (questions[rows], 2.0) if rest else ()
    expected = torch.zeros(7)
    expected[rows] = rule(rewards[rows], drafts[rows], *some_rest)
    expected[5] = 0.0 if rest else 1.0  # alone in its question: the difference needs no group
    found = rule(rewards, drafts, *rest)
    assert torch.equal(found, expected) and found[rows].any()


@pytest.mark.parametrize("rule", ["difference", "progress"])
def test_the_trainer_gives_a_rule_the_rewards_of_each_correction_and_of_its_draft(rule, sampled):
    trainer = sampled(correction_advantage=rule, progress_bonus=2.0, reward=some)
    corrections, found = trainer.layers[2], trainer.batches[2]["advantages"]
    rewards, drafts = corrections.rewards, trainer.layers[1].rewards[corrections.parents]
    missing = torch.tensor([hash_of(text) % 5 < 2 for text in corrections.completions])
    assert 0 < int(missing.sum()) < 12 and torch.equal(rewards.isnan(), missing) and found.any()
    expected = (rewards - drafts).nan_to_num(nan=0.0)
    if rule == "progress":
        expected = progress_advantages(rewards, drafts, torch.tensor([0] * 6 + [1] * 6), 2.0)
    assert torch.equal(found, expected) and not found[missing].any()


def test_successes_alone_have_no_gradient_under_a_group_baseline():
    successes = torch.ones(2)
    assert group_advantages(successes, 2).tolist() == [0, 0]
    assert difference_advantages(successes, torch.zeros(2)).tolist() == [1, 1]
