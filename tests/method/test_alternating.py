"""Layers in turn: a step of drafts, then a step of their corrections, on the same questions."""

import pytest
import torch
from tiny import logged, trained_weights
from trl import GRPOTrainer

from mgrpo_lib.method.alternating import AlternatingTrainer
from mgrpo_lib.method.prompts import guidance


class Watching(AlternatingTrainer):
    """Keeps the questions and the layer of every generation."""

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        self.seen = [*getattr(self, "seen", []), ([row["number"] for row in inputs], self._drafts)]
        return batch


def test_layers_take_turns_and_the_second_one_corrects_the_drafts_of_the_first(make):
    trainer = make(Watching, num_corrections=2, drafts_per_prompt=1, max_steps=4)
    trainer.train()
    (first, drafts), (again, corrections), (then, _), _ = trainer.seen
    assert [layer.number for _, layer in trainer.seen] == [1, 2, 1, 2]
    assert first == again != then, "both turns get the same questions, then come new ones"
    assert len(corrections.prompts) == 2 * 1 * 2
    for row, parent in enumerate(corrections.parents):
        begun = drafts.prompts[parent] + drafts.completions[parent]
        assert corrections.prompts[row] in [begun + guidance(phrase) for phrase in trainer.args.phrases]
    steps = logged(trainer)
    assert ["reward" in step for step in steps] == [True, False, True, False]
    assert ["layer2/reward" in step for step in steps] == [False, True, False, True]
    assert all(step["grad_norm"] > 0 for step in steps[:2])


def test_a_first_turn_is_trls_step(make):
    """To rounding: a prompt is read once for its rows."""
    step = {"max_steps": 1, "optim": "sgd"}
    expected, found = trained_weights(make(GRPOTrainer, **step)), trained_weights(make(AlternatingTrainer, **step))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_evaluation_samples_all_layers_at_once(make):
    trainer = make(AlternatingTrainer, num_corrections=2, num_generations_eval=2, per_device_eval_batch_size=4)
    scores = trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert {"eval_reward", "eval_layer2/reward"} <= scores.keys()


def test_a_checkpoint_from_the_middle_of_a_turn_is_refused(make, tmp_path):
    """The last step saves, wherever it falls; its model is good, but nothing can go on from there."""
    options = {"num_corrections": 2, "save_strategy": "steps", "save_steps": 2}
    make(AlternatingTrainer, max_steps=3, **options).train()
    again = make(AlternatingTrainer, max_steps=4, **options)
    with pytest.raises(ValueError, match="step 3 .*multiple of 2"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.state.global_step == 4
