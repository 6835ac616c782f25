"""The trainer's arguments: TRL's, the correction layers, and the source of every number.

The paper could not be read in full. "Third party" is one other project's file of "paper hyperparameters", which its
author did not verify; "reviews" are public summaries that print the paper's layer-1 equation; "the paper does not say"
means that no source we could read names a value.
"""

from dataclasses import dataclass, field
from math import gcd

from trl import GRPOConfig

from mgrpo_lib.method.prompts import PHRASES

CHOICES = {
    "select_drafts": ("all", "wrong", "mixed"),
    "keep_corrections": ("all", "successes"),
    "correction_advantage": ("group", "difference", "progress"),
    "schedule": ("joint", "alternating"),
    "phrase_role": ("assistant", "user"),
}


@dataclass
class MGRPOConfig(GRPOConfig):
    """A `GRPOConfig` and the correction layers. Every number below that TRL would default is written out.

    Raises:
        ValueError: a combination that cannot train, with what to change.
    """

    # ---- the correction layers
    num_layers: int = field(
        default=2, metadata={"help": "1 is plain GRPO; 2 is the paper's MGRPO; more correct the corrections."}
    )
    num_corrections: int = field(
        default=4,
        metadata={"help": "H: corrections of each draft. The paper does not say; 4 makes 2 drafts x 4 = G."},
    )
    drafts_per_prompt: int | None = field(
        default=2,
        metadata={
            "help": "Drafts of each question that a layer passes on to the next, at most; None: all. The paper does not say."
        },
    )
    select_drafts: str = field(
        default="all", metadata={"help": "Which: all (blindly), wrong, or mixed. The paper does not say."}
    )
    keep_corrections: str = field(
        default="all",
        metadata={
            "help": "What is trained on: all corrections, or the successes (the paper's dynamic verification as retold)."
        },
    )
    correction_advantage: str = field(
        default="group",
        metadata={
            "help": "group: relative to the corrections of the same draft; difference: r2 - r1; progress: SCoRe's "
            "bonus, relative to the question. The paper does not say; group is GRPO's."
        },
    )
    progress_bonus: float = field(
        default=10.0, metadata={"help": "Weight of the bonus r2 - r1 in progress; SCoRe: 10."}
    )
    schedule: str = field(
        default="joint",
        metadata={
            "help": "joint: all layers in each step; alternating: a step for each layer in turn. The paper does not say."
        },
    )
    layer_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each layer's loss; None: 1 each. The paper does not say."}
    )
    phrases: list[str] = field(
        default_factory=lambda: list(PHRASES),
        metadata={"help": "Guiding phrases; one is drawn for each draft. Two independent sources give these seven."},
    )
    phrase_role: str = field(
        default="assistant",
        metadata={
            "help": "Who says the phrase: the assistant, going on in the same turn, or the user, in a new turn "
            "(conversations only). The sources disagree; the phrases are in the first person."
        },
    )
    max_generated_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Stop at the step nearest to this many generated tokens, all layers counted. None: by max_steps alone."
        },
    )

    # ---- the objective of the reviews' equation: 1/|o_i|, symmetric clip, KL inside the loss
    loss_type: str = "grpo"  # reviews: the mean over responses of the mean over tokens; TRL's default is dapo
    scale_rewards: str = "group"  # reviews: "standard GRPO", so division by the group's standard deviation
    beta: float = 0.001  # third party; TRL's default is 0
    use_bias_correction_kl: bool = False  # reviews: the plain KL term; TRL's default is True
    epsilon: float = 0.2  # the paper does not say; GRPO's usual value
    epsilon_high: float | None = 0.2  # reviews: the clip is symmetric
    delta: float | None = None  # reviews: no second clip
    importance_sampling_level: str = "token"  # reviews: a ratio for each token
    mask_truncated_completions: bool = False  # the paper does not say
    num_iterations: int = 1  # the paper does not say
    num_generations: int = 8  # G; third party
    learning_rate: float = 5e-7  # third party
    lr_scheduler_type: str = "constant"  # the paper does not say; constant lets runs of different length be compared
    warmup_steps: float = 0  # the paper does not say
    optim: str = "adamw_torch_fused"  # the paper does not say; TRL's default
    max_grad_norm: float = 1.0  # the paper does not say; TRL's default
    weight_decay: float = 0.0  # the paper does not say; TRL's default
    adam_beta1: float = 0.9  # the paper does not say; TRL's default
    adam_beta2: float = 0.999  # the paper does not say; TRL's default
    adam_epsilon: float = 1e-8  # the paper does not say; TRL's default
    temperature: float = 1.0  # the paper does not say; on-policy sampling needs 1
    top_p: float = 1.0  # the same
    top_k: int = 0  # the same
    # third party: 8196, more than the context of the base model that the paper seems to use; set it by model
    max_completion_length: int | None = 512
    # TRL samples in train mode: with dropout the sampler would be another policy than the one trained
    disable_dropout: bool = True
    report_to: str | list[str] = "none"  # never prompts for an account

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1:
            raise ValueError(f"num_layers is {self.num_layers}; use 1 (plain GRPO) or more")
        if self.layer_weights is None:
            self.layer_weights = [1.0] * self.num_layers
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(choices)}")
        if len(self.layer_weights) != self.num_layers:
            raise ValueError(
                f"layer_weights has {len(self.layer_weights)} entries for {self.num_layers} layers; give one weight per layer"
            )
        if self.num_layers > 1:
            for problem, mend in self._problems():
                raise ValueError(f"{problem}; {mend}")

    @property
    def steps_per_turn(self) -> int:
        """Optimizer steps after which nothing sampled is in use any more: checkpoints belong there."""
        turn = self.steps_per_generation * self.num_iterations
        turn *= self.num_layers if self.schedule == "alternating" else 1
        return turn // gcd(turn, self.gradient_accumulation_steps)

    @property
    def leaves_rows_out(self) -> bool:
        """Whether some rows of a later layer are not trained on: drafts or corrections that do not qualify, or fillers."""
        rows = self.per_device_train_batch_size * self.steps_per_generation
        drafts = rows if self.drafts_per_prompt is None else rows // self.num_generations * self.drafts_per_prompt
        chosen = self.select_drafts == "wrong" or self.keep_corrections == "successes"
        return chosen or bool(drafts % self.drafts_multiple)

    @property
    def drafts_multiple(self) -> int:
        """A process corrects a multiple of this many drafts, so that its rows fill every micro-batch evenly."""
        return self.steps_per_generation // gcd(self.steps_per_generation, self.num_corrections)

    def _problems(self):
        """What cannot train with more than one layer, and what to change."""
        if not self.phrases:
            yield "phrases is empty", "give at least one guiding phrase"
        drafts = self.drafts_per_prompt
        if drafts is not None and not 1 <= drafts <= self.num_generations:
            yield (
                f"drafts_per_prompt is {drafts}",
                f"use 1 to num_generations ({self.num_generations}), or None for all",
            )
        if self.select_drafts == "mixed" and (drafts is None or drafts < 2):
            yield (
                f"select_drafts='mixed' balances wrong and right among drafts_per_prompt, which is {drafts}",
                "use 2 or more",
            )
        if self.num_corrections < 1:
            yield f"num_corrections is {self.num_corrections}", "use 1 or more"
        if self.num_corrections == 1 and self.correction_advantage == "group":
            yield (
                "num_corrections is 1: relative to itself alone the advantage of a correction is always zero",
                "use 2 or more, or correction_advantage='difference'",
            )
        if self.num_corrections == 1 and drafts == 1 and self.correction_advantage == "progress":
            yield (
                "one correction of one draft: relative to itself alone its advantage is always zero",
                "use 2 or more drafts_per_prompt or num_corrections, or correction_advantage='difference'",
            )
        if self.keep_corrections == "successes" and self.correction_advantage != "difference":
            yield (
                "keep_corrections='successes' leaves rewards of 1 alone: relative to those of the same draft all advantages are "
                "zero, and no source defines it with another rule than r2 - r1",
                "set correction_advantage='difference', or keep 'all'",
            )
        rows = self.per_device_train_batch_size * self.steps_per_generation
        by_question = drafts is not None or self.select_drafts != "all" or self.correction_advantage == "progress"
        if by_question and rows % self.num_generations:
            yield (
                f"{rows} rows a process do not hold whole groups of num_generations={self.num_generations}",
                "make per_device_train_batch_size * steps_per_generation a multiple of it, or pass on all drafts",
            )
        if self.use_adaptive_entropy:
            yield (
                "use_adaptive_entropy changes its coefficient at every loss call and would count each layer as a step",
                "switch it off",
            )
        if self.leaves_rows_out and self.entropy_coef != 0:
            yield (
                "an entropy bonus would be scaled up with the rows that are trained on, where others are left out",
                "set entropy_coef=0, or pass on and keep all",
            )
        if self.leaves_rows_out and self.loss_type == "bnpo":
            yield (
                "loss_type='bnpo' takes the mean over each micro-batch, also over one whose rows are all left out",
                "use 'dapo', which takes it over the whole batch, or another, or pass on and keep all",
            )
        unlike = self.scale_rewards == "batch" or self.multi_objective_aggregation != "sum_then_normalize"
        if self.correction_advantage != "group" and unlike:
            yield (
                f"correction_advantage={self.correction_advantage!r} sums the rewards, and scales by group or not at all",
                "set scale_rewards='group' or 'none' and multi_objective_aggregation='sum_then_normalize'",
            )
        micro_steps = self.steps_per_generation * self.num_iterations
        if self.schedule == "alternating" and micro_steps % self.gradient_accumulation_steps:
            yield (
                "schedule='alternating' gives each layer whole optimizer steps, but a generation lasts "
                f"steps_per_generation * num_iterations = {micro_steps} micro-steps",
                f"make that a multiple of gradient_accumulation_steps ({self.gradient_accumulation_steps})",
            )
        turn, by_steps = self.steps_per_turn, self.save_strategy == "steps" and self.save_steps >= 1
        every = f" with save_steps={self.save_steps}" if self.save_strategy == "steps" else ""
        if self.save_strategy != "no" and turn > 1 and not (by_steps and self.save_steps % turn == 0):
            yield (
                f"save_strategy={self.save_strategy.value!r}{every} would save in the middle of a "
                "generation, where a run cannot be resumed",
                f"use save_strategy='steps' and for save_steps a multiple of {turn}",
            )
