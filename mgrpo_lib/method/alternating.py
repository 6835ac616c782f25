"""The layers in turn: an optimizer step for each layer, on the same questions, as ThinkTwice does. An ablation; the main
trainer takes all layers in each step.
"""

from datasets import Dataset

from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.drafts import Layer
from mgrpo_lib.method.trainer import MGRPOTrainer


class AlternatingTrainer(MGRPOTrainer):
    """`MGRPOTrainer` whose layers take turns: a generation of drafts, a step, a generation of their corrections, a step.

    Raises:
        ValueError: a stream of questions, which does not give those of a turn again; a generation that does not last whole
            optimizer steps; checkpoints in the middle of a turn.
    """

    def __init__(self, model, reward_funcs, args: MGRPOConfig, *rest, **kwargs):
        micro_steps = args.steps_per_generation * args.num_iterations
        if micro_steps % args.gradient_accumulation_steps:
            raise ValueError(
                f"a generation lasts steps_per_generation * num_iterations = {micro_steps} micro-steps, and each layer needs "
                f"whole optimizer steps; make that a multiple of gradient_accumulation_steps={args.gradient_accumulation_steps}"
            )
        args.check_saves(args.num_layers)
        self.layers_in_turn = args.num_layers
        super().__init__(model, reward_funcs, args, *rest, **kwargs)
        if not isinstance(self.train_dataset, Dataset):
            raise ValueError("layers in turn need the questions of a turn again; use a datasets.Dataset")
        self._drafts: Layer | None = None  # what the next step's layer corrects
        self._turn = 1  # the layer in TRL's own buffer

    @property
    def _first_layer(self) -> int:
        return self._turn if self.model.training else 1

    def _get_train_sampler(self, dataset=None):
        sampler = super()._get_train_sampler(dataset)
        sampler.repeat_count *= self.args.num_layers  # a batch of questions serves every layer in turn
        return sampler

    def _generate_and_score_completions(self, inputs):
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        self._next_generation()
        steps = self.state.global_step * self.args.gradient_accumulation_steps
        self._turn = 1 + steps // (self.args.steps_per_generation * self.num_iterations) % self.args.num_layers
        if self._turn == 1:
            batch, self._drafts = self._sample_drafts(inputs)
        else:
            corrections = self._corrections_of(self._drafts, self._turn)
            batch, self._drafts = self._sample_corrections(corrections, self._drafts), corrections
        self._fresh = []
        return batch
