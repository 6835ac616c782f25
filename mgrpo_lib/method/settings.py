"""Every setting of a training: declared, documented, sourced and checked here, once. No torch.

`MGRPOConfig` adds these to TRL's `GRPOConfig`; a profile's training settings are made and checked from the same
declaration. The paper could not be read in full. In the help, "third party" is one other project's file of "paper
hyperparameters", which its author did not verify. "Reviews" are public summaries that print the paper's layer-1 equation.
"The paper does not say" means that no source we could read names a value.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from mgrpo_lib.method.prompts import PHRASES, text_problem


def setting(default: Any, text: str) -> Any:
    """Declare one setting with its help."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class MGRPOSettings:
    """The correction layers, and the objective with every number that TRL would default written out.

    Raises:
        ValueError: a value or a combination that cannot train; the message names the setting and the fix.
    """

    # ---- the correction layers
    num_layers: int = setting(2, "1: plain GRPO; 2: the paper's MGRPO; more: corrections are corrected again")
    num_corrections: int = setting(4, "H: corrections per draft. The paper does not say; 4 makes 2 drafts x 4 = G")
    drafts_per_prompt: int = setting(
        2, "drafts of each question passed on to the next layer, at most; num_generations: all. The paper does not say"
    )
    select_drafts: Literal["all", "wrong", "mixed"] = setting(
        "all",
        "which drafts: all (blind to the reward), wrong ones, or half wrong and half right. The paper does not say",
    )
    keep_corrections: Literal["all", "successes"] = setting(
        "all", "corrections trained on: all, or the successes (the paper's dynamic verification as it is retold)"
    )
    correction_advantage: Literal["group", "difference", "progress"] = setting(
        "group",
        "group: relative to the corrections of the same draft; difference: r2 - r1; progress: SCoRe's bonus, relative to the "
        "question. The paper does not say; group is GRPO's",
    )
    progress_bonus: float = setting(10.0, "progress only: weight of the bonus r2 - r1. SCoRe: 10")
    right_above: float = setting(0.5, "a completion is right if the first reward function gives it more than this")
    layer_weights: list[float] | None = setting(
        None, "weight of each layer's loss; None: 1 each. The paper does not say"
    )
    phrases: list[str] = setting(
        PHRASES, "guiding phrases; one is drawn per draft. Two independent sources give these seven"
    )
    phrase_role: Literal["assistant", "user"] = setting(
        "assistant",
        "who says the phrase: the assistant in the same turn, or the user in a new turn (conversations only). The sources "
        "disagree; the phrases are in the first person",
    )

    # ---- the objective of the reviews' equation: 1/|o_i|, symmetric clip, KL inside the loss
    num_generations: int = setting(8, "G: completions per question. Third party")
    learning_rate: float = setting(5e-7, "Adam's learning rate. Third party")
    beta: float = setting(0.001, "weight of the KL term; 0: no reference model. Third party; TRL's default is 0")
    epsilon: float = setting(0.2, "clip range of the ratio. The paper does not say; GRPO's usual value")
    epsilon_high: float | None = setting(None, "upper clip range; None: epsilon. Reviews: the clip is symmetric")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = setting(
        "grpo",
        "TRL's loss normalisation. Reviews: grpo, the mean over completions of token means; TRL's default is dapo",
    )
    scale_rewards: Literal["group", "batch", "none"] = setting(
        "group", "divide by the group's standard deviation. Reviews: standard GRPO"
    )
    use_bias_correction_kl: bool = setting(
        False, "weight the KL term by the ratio. Reviews: the plain term; TRL's default is True"
    )
    delta: float | None = setting(None, "second clip of the ratio. Reviews: none")
    importance_sampling_level: str = setting(
        "token", "token or sequence: what has a ratio of its own. Reviews: a token"
    )
    mask_truncated_completions: bool = setting(False, "leave truncated completions out. The paper does not say")
    num_iterations: int = setting(1, "optimizer passes per generation. The paper does not say")
    temperature: float = setting(1.0, "sampling temperature. The paper does not say; on-policy sampling needs 1")
    top_p: float = setting(1.0, "nucleus sampling. On-policy sampling needs 1")
    top_k: int = setting(0, "top-k sampling; 0: off. On-policy sampling needs 0")
    # third party: 8196, more than the context of the base model that the paper seems to use
    max_completion_length: int = setting(
        512, "tokens of one completion, at most, in training and at test. Set it by model"
    )
    lr_scheduler_type: str = setting(
        "constant",
        "course of the learning rate. The paper does not say; constant lets runs of different length be compared",
    )
    warmup_steps: float = setting(0, "steps in which the learning rate rises to its value. The paper does not say")
    optim: str = setting("adamw_torch_fused", "optimizer. The paper does not say; TRL's default")
    max_grad_norm: float = setting(1.0, "clip of the gradient's norm. The paper does not say; TRL's default")
    weight_decay: float = setting(0.0, "Adam's weight decay. The paper does not say; TRL's default")
    adam_beta1: float = setting(0.9, "memory of Adam's mean gradient. The paper does not say; TRL's default")
    adam_beta2: float = setting(0.999, "memory of Adam's mean squared gradient. The paper does not say; TRL's default")
    adam_epsilon: float = setting(1e-8, "Adam's guard against division by zero. The paper does not say; TRL's default")
    # TRL samples in train mode: with dropout the sampler would be another policy than the one trained
    disable_dropout: bool = setting(True, "no dropout in training: sample from the policy that is trained")
    report_to: str | list[str] = setting("none", "trackers of transformers; none never prompts for an account")

    def __post_init__(self):
        self.check()

    def check(self) -> None:
        """Refuse values that cannot train."""
        for problem, fix in self._problems():
            raise ValueError(f"{problem}; {fix}")
        if self.layer_weights is None:
            self.layer_weights = [1.0] * self.num_layers

    def _problems(self):
        for name, least in AT_LEAST.items():
            if not getattr(self, name) >= least:
                yield f"{name} is {getattr(self, name)}", f"use {least} or more"
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                yield f"{name} is {getattr(self, name)!r}", f"use one of {', '.join(values)}"
        if self.layer_weights is not None and len(self.layer_weights) != self.num_layers:
            yield (
                f"layer_weights has {len(self.layer_weights)} entries for {self.num_layers} layers",
                "give one weight per layer",
            )
        if not isinstance(self.phrases, list) or not all(isinstance(p, str) and p.strip() for p in self.phrases):
            yield f"phrases is {self.phrases!r}", "give a list of texts, such as ['Is that so?']"
        else:
            yield from filter(None, (text_problem("phrases", phrase) for phrase in self.phrases))
        if self.num_layers > 1:
            yield from self._correction_problems()

    def _correction_problems(self):
        """Correction layers that would have nothing to learn from."""
        drafts, group = self.drafts_per_prompt, self.num_generations
        if not self.phrases:
            yield "phrases is empty", "give at least one guiding phrase"
        if not 1 <= drafts <= group:
            yield f"drafts_per_prompt is {drafts}", f"use 1 to num_generations ({group}), which passes on all"
        if self.select_drafts == "mixed" and drafts < 2:
            yield (
                f"select_drafts='mixed' takes wrong and right drafts, and drafts_per_prompt is {drafts}",
                "use 2 or more",
            )
        compared = {"group": self.num_corrections, "progress": self.num_corrections * drafts, "difference": 2}
        if compared[self.correction_advantage] == 1:
            yield (
                f"num_corrections is {self.num_corrections}: relative to itself alone the advantage of a correction is zero",
                "use 2 or more, or correction_advantage='difference'",
            )
        if self.keep_corrections == "successes" and self.correction_advantage != "difference":
            yield (
                "keep_corrections='successes' leaves rewards of 1 alone: relative to each other all advantages are zero",
                "set correction_advantage='difference', or keep_corrections='all'",
            )


@dataclass
class BudgetSettings:
    """What a training may end by; a profile names an arm whose tokens are matched (`match_tokens_of`)."""

    max_generated_tokens: int | None = setting(
        None, "stop at the step nearest to this many sampled tokens, all layers counted; None: by max_steps"
    )


AT_LEAST = {
    "num_layers": 1,
    "num_corrections": 1,
    "num_generations": 2,
    "progress_bonus": 0,
    "beta": 0,
    "num_iterations": 1,
}
CHOICES = {
    name: get_args(declared.type)
    for name, declared in MGRPOSettings.__dataclass_fields__.items()
    if get_origin(declared.type) is Literal
}
