"""Multi-Layer GRPO on top of TRL's `GRPOTrainer` (paper: arXiv 2506.04746).

Layer 1 is TRL's GRPO, untouched. Layer 2 is one more ordinary TRL generation batch: for every draft that is passed on,
the prompt is (question, draft, guiding phrase), H corrections are sampled, and the advantage is relative to those H.
The policy is trained on the sum

    loss = w_1 L_GRPO(questions) + w_2 L_GRPO(questions + drafts + phrases) [+ w_3 ...]

with both terms at the same policy and in the same optimizer step. The layers are never concatenated: each keeps its own
padding and its own normalisation. No body of TRL is copied; every override calls `super()`.

How this departs from the paper, as far as the paper is known:
1. The paper does not say whether the layers are trained in one step or in turn; we take one joint step.
2. Its "dynamic verification" seems to drop failed corrections. With a group baseline the successes alone have zero
   advantage, so all H are kept.
3. Which drafts are passed on is not known; we take `drafts_per_prompt` of the G at random, right and wrong alike,
   without a hint which.
4. The layer-2 template is known only in structure (see `mgrpo_lib.prompts`).
"""

import hashlib
import random
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from mgrpo_lib.prompts import PHRASES, correction_ids, correction_prompt, guidance


@dataclass
class MGRPOConfig(GRPOConfig):
    """A `GRPOConfig` and the correction layers. Every number below that TRL would default is written out, with its
    source.

    The paper could not be read in full. "Third party" is one other project's file of "paper hyperparameters", which its
    author did not verify; "reviews" are public summaries that print the paper's layer-1 equation; "the paper does not
    say" means that no source we could read names a value.

    Raises:
        ValueError: a combination that cannot train, with what to change.
    """

    # ---- the correction layers
    num_layers: int = field(
        default=2, metadata={"help": "1 is plain GRPO; 2 is the paper's MGRPO; more correct the corrections."}
    )
    num_corrections: int = field(
        default=4,
        metadata={
            "help": "H: corrections sampled per draft, the group of layer 2. The paper does not say; 4 makes 2 drafts x 4 = G."
        },
    )
    drafts_per_prompt: int | None = field(
        default=2,
        metadata={
            "help": "Drafts of each question that are passed on, drawn at random; None: all G. The paper does not say."
        },
    )
    layer_weights: list[float] = field(
        default_factory=lambda: [1.0, 1.0],
        metadata={"help": "Weight of each layer's loss. The paper does not say; 1 each."},
    )
    phrases: list[str] = field(
        default_factory=lambda: list(PHRASES),
        metadata={"help": "Guiding phrases; one is drawn for each draft. Two independent sources give these seven."},
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
        if self.num_layers == 1:
            return
        if self.num_corrections < 2:
            raise ValueError(
                f"num_corrections is {self.num_corrections}: with a single correction per draft the group-relative advantage is always zero; use 2 or more"
            )
        if len(self.layer_weights) != self.num_layers:
            raise ValueError(
                f"layer_weights has {len(self.layer_weights)} entries for {self.num_layers} layers; give one weight per layer"
            )
        if not self.phrases:
            raise ValueError("phrases is empty; give at least one guiding phrase")
        if self.drafts_per_prompt is not None and not 1 <= self.drafts_per_prompt <= self.num_generations:
            raise ValueError(
                f"drafts_per_prompt is {self.drafts_per_prompt}; use 1 to num_generations ({self.num_generations}), or None for all"
            )
        rows = self.per_device_train_batch_size * self.steps_per_generation
        if rows % self.num_generations:
            raise ValueError(
                f"{rows} rows a process do not hold whole groups of num_generations={self.num_generations}; make "
                "per_device_train_batch_size * steps_per_generation a multiple of it"
            )
        drafts = rows if self.drafts_per_prompt is None else rows // self.num_generations * self.drafts_per_prompt
        if drafts * self.num_corrections % self.steps_per_generation:
            raise ValueError(
                f"{drafts} drafts x {self.num_corrections} corrections cannot be cut into steps_per_generation={self.steps_per_generation} equal "
                "micro-batches; change drafts_per_prompt or num_corrections"
            )
        if self.use_adaptive_entropy:
            raise ValueError(
                "use_adaptive_entropy changes its coefficient at every loss call and would count each layer as a step; switch it off"
            )


@dataclass
class Rollouts:
    """What a layer sampled on this process, row by row; the next layer is built from it."""

    inputs: list[dict]
    prompts: list
    prompt_ids: list[list[int]]
    completions: list
    completion_ids: list[list[int]]
    rewards: torch.Tensor  # (rows,) weighted sum over the reward functions


class MGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` with correction layers. Use it like `GRPOTrainer`, with an `MGRPOConfig`.

    With ``num_layers=1``, or with weight 0 on every later layer, it trains bit for bit as `GRPOTrainer` does.

    Logged beside TRL's metrics: ``layer2/...`` (TRL's own for the second layer), ``layer2/accuracy`` (share of
    corrections with reward above 0.5), ``layer2/fixed`` and ``layer2/broken`` (share of corrections that turned a wrong
    draft right, a right draft wrong), ``layer2/copied`` (share that repeat the draft to the letter),
    ``generated_tokens`` (all layers, all processes, since the start).
    """

    _name = "MGRPO"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generated_tokens = 0
        self._layer = 1  # the layer that is being generated
        self._rollouts: Rollouts | None = None  # of the last generated layer
        self._correction_batches: list[dict] = []  # layers >= 2 of the last generation
        self._correction_slices: list[list[dict]] = []  # the same, cut for gradient accumulation
        self._draw_key, self._draw = None, 0
        self.add_callback(_TokenCount(self))
        if self.args.num_layers > 1:  # room for the later layers in the table of completions
            size = self._logs["prompt"].maxlen * (self.args.num_layers + 1) * self.args.num_corrections
            for key, value in self._logs.items():
                self._logs[key] = (
                    defaultdict(lambda: deque(maxlen=size)) if isinstance(value, defaultdict) else deque(maxlen=size)
                )

    # ------------------------------------------------------------------------------------------ overrides of TRL
    def _tokenize_prompts(self, prompts):
        if self._layer > 1:
            return self._prompt_ids, None, {}  # exact tokens, set by `_correct`
        out = super()._tokenize_prompts(prompts)
        self._prompt_ids = out[0]
        return out

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self.args.num_layers > 1:
            self._log_completion_extra("layer", [self._layer] * len(prompts))
        # (rows of all processes, functions)
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        first = self.accelerator.process_index * len(prompts)
        own = (rewards * self.reward_weights.to(rewards.device)).nansum(1)[first : first + len(prompts)]
        self._rollouts = Rollouts(inputs, prompts, self._prompt_ids, completions, completion_ids_list, own)
        if self.model.training:
            count = torch.tensor(sum(map(len, completion_ids_list)), device=self.accelerator.device)
            self.generated_tokens += int(self.accelerator.gather(count).sum())
            self._metrics["train"]["generated_tokens"] = [float(self.generated_tokens)]
        return rewards

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        if self._layer == 1:
            key = (self.model.training, self.state.global_step)
            self._draw = self._draw + 1 if key == self._draw_key else 0
            self._draw_key = key
            self._correction_batches = [self._correct(layer) for layer in range(2, self.args.num_layers + 1)]
        return batch

    def _prepare_inputs(self, generation_batch):
        self._correction_batches = []
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return {**inputs, "corrections": self._correction_batches}
        slices = self.args.steps_per_generation
        if self._correction_batches:  # freshly generated; otherwise the buffered ones are still in use, as in TRL
            self._correction_slices = [self._split(batch, slices) for batch in self._correction_batches]
        return {**inputs, "corrections": [layer[self._step % slices] for layer in self._correction_slices]}

    def _compute_loss(self, model, inputs):
        """The objective: sum over the layers of weight times TRL's GRPO loss."""
        inputs = dict(inputs)
        corrections = inputs.pop("corrections")
        loss = super()._compute_loss(model, inputs)
        if self.args.num_layers == 1:
            return loss
        first, *later = self.args.layer_weights
        loss = loss if first == 1.0 else first * loss
        for layer, (weight, batch) in enumerate(zip(later, corrections, strict=True), start=2):
            if weight != 0.0:
                with self._metrics_of(layer):
                    loss = loss + weight * super()._compute_loss(model, batch)
        return loss

    # ------------------------------------------------------------------------------------------ a correction layer
    def _correct(self, layer: int) -> dict[str, torch.Tensor]:
        """Samples and scores H corrections of each chosen draft of the layer before: a TRL batch of (drafts * H) rows,
        groups contiguous.
        """
        drafts, copies = self._rollouts, self.args.num_corrections
        rng = random.Random(self._seed(layer, "choice"))
        chosen = list(range(len(drafts.prompts)))
        if layer == 2 and self.args.drafts_per_prompt is not None:
            group = self.num_generations if self.model.training else self.num_generations_eval
            chosen = choose_drafts(len(drafts.prompts), group, self.args.drafts_per_prompt, rng)
        rows, prompt_ids = [], []
        for i in chosen:
            phrase = rng.choice(self.args.phrases)
            guidance_ids = self._tokenizer(guidance(phrase), add_special_tokens=False)["input_ids"]
            prompt = correction_prompt(drafts.prompts[i], drafts.completions[i], phrase)
            ids = correction_ids(drafts.prompt_ids[i], drafts.completion_ids[i], guidance_ids, set(self.eos_token_ids))
            rows += [{**drafts.inputs[i], "prompt": prompt} for _ in range(copies)]
            prompt_ids += [ids] * copies
        with self._generating(layer, prompt_ids):
            batch = super()._generate_and_score_completions(rows)
        self._log_transitions(layer, drafts, [i for i in chosen for _ in range(copies)], self._rollouts)
        return batch

    @contextmanager
    def _generating(self, layer: int, prompt_ids: list[list[int]]):
        """TRL as layer `layer` needs it: groups of H, given prompt tokens, metrics of its own, and random numbers that
        leave layer 1's alone.
        """
        saved = self._layer, self.num_generations, self.num_generations_eval
        self._layer, self._prompt_ids = layer, prompt_ids
        self.num_generations = self.num_generations_eval = self.args.num_corrections
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        try:
            with self._metrics_of(layer), torch.random.fork_rng(devices):
                torch.manual_seed(self._seed(layer, "sampling"))
                yield
        finally:
            self._layer, self.num_generations, self.num_generations_eval = saved

    @contextmanager
    def _metrics_of(self, layer: int):
        """Whatever TRL logs inside goes to ``layer<n>/...`` and leaves layer 1's averages alone; totals stay totals."""
        mode = "train" if self.model.training else "eval"
        main, self._metrics[mode] = self._metrics[mode], defaultdict(list)
        try:
            yield
        finally:
            side, self._metrics[mode] = self._metrics[mode], main
            for key, values in side.items():
                if key in ("num_tokens", "generated_tokens"):
                    main[key] = values
                else:
                    main[f"layer{layer}/{key}"].extend(values)

    def _log_transitions(self, layer: int, drafts: Rollouts, parents: list[int], corrections: Rollouts) -> None:
        before, after = drafts.rewards[parents] > 0.5, corrections.rewards > 0.5
        copied = [drafts.completions[i] == text for i, text in zip(parents, corrections.completions, strict=True)]
        shares = torch.stack(
            [after, after & ~before, before & ~after, torch.tensor(copied, device=after.device)], 1
        ).float()
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, share in zip(
            ("accuracy", "fixed", "broken", "copied"), self.accelerator.gather(shares).mean(0).tolist(), strict=True
        ):
            metrics[f"layer{layer}/{name}"].append(share)

    def _split(self, batch: dict[str, torch.Tensor], slices: int) -> list[dict[str, torch.Tensor]]:
        """Cuts a layer into as many micro-batches as TRL cuts layer 1, rows in random order."""
        order = torch.randperm(
            len(batch["advantages"]), generator=torch.Generator().manual_seed(self._seed(0, "split"))
        )
        parts = order.to(self.accelerator.device).chunk(slices)
        return [{key: value if value.ndim == 0 else value[part] for key, value in batch.items()} for part in parts]

    def _seed(self, layer: int, purpose: str) -> int:
        """A seed that depends only on where in the run we are, so that a resumed run draws what the whole one would
        have drawn.
        """
        place = f"{self.args.seed}|{self._draw_key}|{self._draw}|{self.accelerator.process_index}|{layer}|{purpose}"
        return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), "big")


class _TokenCount(TrainerCallback):
    """Takes up the count of generated tokens after a resume, and stops at the step nearest to the budget."""

    def __init__(self, trainer: MGRPOTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        counts = [entry["generated_tokens"] for entry in state.log_history if "generated_tokens" in entry]
        self.trainer.generated_tokens = int(counts[-1]) if counts else 0

    def on_step_end(self, args, state, control, **kwargs):
        if args.max_generated_tokens is not None:
            half_a_step = self.trainer.generated_tokens / state.global_step / 2
            if self.trainer.generated_tokens + half_a_step >= args.max_generated_tokens:
                control.should_training_stop = True


def choose_drafts(rows: int, group: int, k: int, rng: random.Random) -> list[int]:
    """Row numbers of `k` drafts of each group, at random and blind to the reward.

    >>> choose_drafts(rows=6, group=3, k=1, rng=random.Random(0))
    [1, 4]
    """
    return [start + i for start in range(0, rows, group) for i in sorted(rng.sample(range(group), min(k, group)))]
