"""The trainer's configuration: TRL's `GRPOConfig` with this project's settings (`mgrpo_lib.method.settings`)."""

from dataclasses import dataclass
from math import gcd

import torch
from trl import GRPOConfig

from mgrpo_lib.method.settings import BudgetSettings, MGRPOSettings


@dataclass
class MGRPOConfig(MGRPOSettings, BudgetSettings, GRPOConfig):
    """A `GRPOConfig` with correction layers.

    Raises:
        ValueError: a combination that cannot train; the message names the setting and the fix.
    """

    def __post_init__(self):
        if isinstance(self.scale_rewards, bool):  # as TRL takes it
            self.scale_rewards = "group" if self.scale_rewards else "none"
        self.check()  # before TRL's checks, which ask for hardware
        if self.bf16 is None:  # TRL's default is True, and an error on a machine without it
            self.bf16 = not (self.fp16 or self.use_cpu) and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        GRPOConfig.__post_init__(self)
        if self.num_layers > 1:
            self.check_saves()
            for problem, fix in self._batch_problems():
                raise ValueError(f"{problem}; {fix}")

    @property
    def rows(self) -> int:
        """Layer-1 completions of one process in a generation."""
        return self.per_device_train_batch_size * self.steps_per_generation

    @property
    def drafts_multiple(self) -> int:
        """A process corrects a multiple of this many drafts, so that its rows fill every micro-batch evenly."""
        return self.steps_per_generation // gcd(self.steps_per_generation, self.num_corrections)

    @property
    def leaves_rows_out(self) -> bool:
        """True if some corrections are not trained on: they do not qualify, or only fill a batch."""
        drafts = self.rows * self.drafts_per_prompt // self.num_generations
        chosen = self.select_drafts == "wrong" or self.keep_corrections == "successes"
        return chosen or bool(drafts % self.drafts_multiple)

    def steps_per_turn(self, layers_in_turn: int = 1) -> int:
        """Optimizer steps after which no rollout is in use: checkpoints belong there."""
        turn = self.steps_per_generation * self.num_iterations * layers_in_turn
        return turn // gcd(turn, self.gradient_accumulation_steps)

    def check_saves(self, layers_in_turn: int = 1) -> None:
        """Refuse checkpoints in the middle of a generation, where a run cannot be resumed."""
        turn, by_steps = self.steps_per_turn(layers_in_turn), self.save_strategy == "steps" and self.save_steps >= 1
        if self.save_strategy != "no" and turn > 1 and not (by_steps and self.save_steps % turn == 0):
            raise ValueError(
                f"save_strategy={self.save_strategy.value!r} with save_steps={self.save_steps} saves in the middle of a "
                f"generation, where a run cannot be resumed; set save_strategy='steps' and save_steps to a multiple of {turn}"
            )

    def _batch_problems(self):
        """Correction layers that do not go with TRL's own settings."""
        by_question = (
            self.drafts_per_prompt < self.num_generations
            or self.select_drafts != "all"
            or self.correction_advantage == "progress"
        )
        if by_question and self.rows % self.num_generations:
            yield (
                f"{self.rows} rows per process do not hold whole groups of num_generations={self.num_generations}",
                "make per_device_train_batch_size * steps_per_generation a multiple of it, or pass on all drafts",
            )
        if self.leaves_rows_out and (self.entropy_coef != 0 or self.use_adaptive_entropy):
            yield (
                "the entropy bonus is scaled up where rows are left out",
                "set entropy_coef=0 and use_adaptive_entropy=False, or pass on and keep all",
            )
        if self.leaves_rows_out and self.loss_type == "bnpo":
            yield (
                "loss_type='bnpo' takes the mean over each micro-batch, also over one whose rows are all left out",
                "use 'dapo', which takes it over the whole batch, or pass on and keep all",
            )
        unlike = self.scale_rewards == "batch" or self.multi_objective_aggregation != "sum_then_normalize"
        if self.correction_advantage != "group" and unlike:
            yield (
                f"correction_advantage={self.correction_advantage!r} sums the rewards, and scales by group or not at all",
                "set scale_rewards='group' or 'none' and multi_objective_aggregation='sum_then_normalize'",
            )
