"""Multi-Layer GRPO on top of TRL's `GRPOTrainer` (paper: arXiv 2506.04746).

Layer 1 is TRL's GRPO, untouched. Layer 2 is one more ordinary TRL generation batch. For every draft that is passed on, the
prompt is (question, draft, guiding phrase), H corrections are sampled, and the advantage is relative to those H. The policy
is trained on the sum

    loss = w_1 L_GRPO(questions) + w_2 L_GRPO(questions + drafts + phrases) [+ w_3 ...]

with all terms at the same policy and in the same optimizer step (`MGRPOTrainer._compute_loss`). The layers are never
concatenated: each keeps its own padding and its own normalisation. No method of TRL is copied; every override calls `super()`.

In reading order: sample (`_generate_and_score_completions`), build layer 2 (`_corrections_of`), grade (`_calculate_rewards`),
advantages (`_advantages`), sum of losses (`_compute_loss`). Beside it stand `mgrpo_lib.method.advantages` (equations),
`drafts` (what is passed on), `prompts` (what layer 2 reads), `sharing` (throughput), `checkpoints` and `guard`.

Where the paper is silent, to our knowledge:
1. The paper does not say whether the layers are trained in one step or in turn. We take one joint step
   (`mgrpo_lib.method.alternating` takes turns).
2. Its "dynamic verification" seems to drop failed corrections. With a group baseline the successes alone have zero advantage,
   so all H are kept (``keep_corrections``, see `mgrpo_lib.method.drafts.trained_on`).
3. Which drafts are passed on is not known. We take ``drafts_per_prompt`` of the G at random, right and wrong alike
   (``select_drafts``).
4. The layer-2 template is known only in structure (`mgrpo_lib.method.prompts`, ``phrase_role``).
"""

import hashlib
import random
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType

from mgrpo_lib.method import advantages, checks
from mgrpo_lib.method.checkpoints import AtomicCheckpoints
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.drafts import FILLER, Layer, changes, choose_drafts, trained_on
from mgrpo_lib.method.guard import Guard, TokenBudget, explained
from mgrpo_lib.method.metrics import LayerMetrics
from mgrpo_lib.method.prompts import correction_ids, correction_prompt
from mgrpo_lib.method.quantized import make_trainable
from mgrpo_lib.method.sharing import MEAN_OVER_ROWS, SharedPrompts


class MGRPOTrainer(SharedPrompts, LayerMetrics, AtomicCheckpoints):
    """TRL's `GRPOTrainer` with correction layers. Use it like `GRPOTrainer`, with an `MGRPOConfig`.

    With ``num_layers=1``, or with weight 0 on every later layer (CPU or one CUDA device, no vLLM), it trains bit for bit as
    `GRPOTrainer` does. A completion counts as right if the first reward function gives it more than ``right_above``. A
    model in 4 bits gets adapters in float32 and may be evaluated before it is trained.

    Logged beside TRL's metrics: ``accuracy`` and ``tokens`` of layer 1; the same and all of TRL's for the second layer as
    ``layer2/...``, with ``fixed``, ``broken``, ``kept``, ``copied``, ``edit_distance``, ``used``; ``generated_tokens``.

    Args:
        answer_of: the final answer in a completion's text, of whatever kind; with it ``answer_changed`` is logged too.

    Raises:
        ValueError: what `mgrpo_lib.method.checks` refuses; the message names the fix.
        TrainingError: from `train`, where memory, disk or numbers end it.
    """

    _name = "MGRPO"
    layers_in_turn = 1  # how many layers take turns with the optimizer; here all are in each step
    _first_layer = 1  # the layer in TRL's own buffer

    def __init__(
        self,
        model,
        reward_funcs=None,
        args: MGRPOConfig | None = None,
        *rest,
        answer_of: Callable[[str], Any] | None = None,
        **kwargs,
    ):
        args = MGRPOConfig() if args is None else args
        checks.before_loading(model, args, kwargs)
        super().__init__(model, reward_funcs, args, *rest, **kwargs)
        checks.after_loading(self)
        make_trainable(self.model)
        self.answer_of = answer_of
        self.budget, self.guard = TokenBudget(args, self.layers_in_turn), Guard()
        self.add_callback(self.budget)
        self.add_callback(self.guard)
        self._layer = Layer(1, [], [])  # the layer that is being sampled
        self._fresh: list[dict] | None = None  # correction layers of a new generation; None: the last one is in use
        self._pieces: list[list[list[dict]]] = []  # the same, cut: layer, micro-batch, piece
        self._generation = (None, 0)  # where in the training we are, and how often it was sampled there
        if args.num_layers == 1:
            return
        self._lean = any(args.layer_weights[1:])
        self._guidance = checks.guidance_tokens(self)
        checks.before_training(self, super()._tokenize_prompts)
        self._make_room(args.generation_batch_size * (args.num_layers + 1) * args.num_corrections)

    @property
    def generated_tokens(self) -> int:
        """Tokens sampled in training since the start: all layers, all processes, fillers too."""
        return self.budget.generated_tokens

    @explained
    def train(self, *args, **kwargs):
        return super().train(*args, **kwargs)

    # ---------------------------------------------------------------------------------------------------- sample
    def _generate_and_score_completions(self, inputs):
        """Sample and grade the drafts, then the corrections of the drafts, one layer after the other."""
        self._next_generation()
        batch, drafts = self._sample_drafts(inputs)
        self._fresh = []
        for number in range(2, self.args.num_layers + 1):
            corrections = self._corrections_of(drafts, number)
            self._fresh.append(self._sample_corrections(corrections, drafts))
            drafts = corrections
        return batch

    def _sample_drafts(self, inputs: list[dict]) -> tuple[dict, Layer]:
        """Sample and grade layer 1: TRL's own batch."""
        group = self.num_generations if self.model.training else self.num_generations_eval
        drafts = Layer(1, inputs, questions=[row // group for row in range(len(inputs))])
        self._layer = drafts
        return super()._generate_and_score_completions(inputs), drafts

    def _corrections_of(self, drafts: Layer, number: int) -> Layer:
        """Build the rows of the next layer: H per chosen draft, each with (question, draft, guiding phrase)."""
        args, copies = self.args, self.args.num_corrections
        rng = random.Random(self._seed(number, "choice"))
        chosen = choose_drafts(drafts.questions, drafts.right.tolist(), args.drafts_per_prompt, args.select_drafts, rng)
        # every process samples as many rows, and each micro-batch holds as many: the rest are fillers
        most, unit = max(1, int(self._gather([len(chosen)]).max())), args.drafts_multiple
        filled = chosen + [0] * (-(-most // unit) * unit - len(chosen))
        rows, prompt_ids = [], []
        for i in filled:
            phrase = rng.choice(args.phrases)
            prompt = correction_prompt(drafts.prompts[i], drafts.completions[i], phrase, args.phrase_role)
            between, ends = self._guidance[phrase], set(self.eos_token_ids)
            rows += [{**drafts.inputs[i], "prompt": prompt} for _ in range(copies)]
            prompt_ids += [correction_ids(drafts.prompt_ids[i], drafts.completion_ids[i], between, ends)] * copies
        parents = [i for i in filled for _ in range(copies)]
        real = len(chosen) * copies
        questions = [drafts.questions[i] if row < real else FILLER for row, i in enumerate(parents)]
        return Layer(number, rows, questions, prompt_ids, parents)

    def _sample_corrections(self, corrections: Layer, drafts: Layer) -> dict[str, torch.Tensor]:
        """Sample and grade a correction layer: a TRL batch of (drafts * H) rows, groups contiguous."""
        with self._sampling(corrections):
            batch = super()._generate_and_score_completions(corrections.inputs)
            return self._set_advantages(batch, corrections, drafts)

    def _tokenize_prompts(self, prompts):
        if self._layer.number > 1:
            return self._layer.prompt_ids, None, {}  # the draft's own tokens, never decoded and tokenized again
        out = super()._tokenize_prompts(prompts)
        self._layer.prompt_ids = out[0]
        return out

    # ----------------------------------------------------------------------------------------------------- grade
    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """Grade the layer that is being sampled, by TRL's reward functions, and note what the next layer needs."""
        layer, rows = self._layer, len(prompts)
        if self.args.num_layers > 1:
            self._log_completion_extra("layer", [layer.number] * rows)
        # (rows of all processes, functions)
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        filler = ~self._gather(layer.real.tolist())
        rewards[filler] = torch.nan  # TRL: no reward, no advantage, not in the mean
        weighted = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        weighted[rewards.isnan().all(1)] = torch.nan
        right = rewards[:, 0] > self.args.right_above
        mine = slice(self.accelerator.process_index * rows, (self.accelerator.process_index + 1) * rows)
        layer.prompts, layer.completions, layer.completion_ids = prompts, completions, completion_ids_list
        layer.all_rewards, layer.rewards, layer.right = weighted, weighted[mine], right[mine]
        metrics = self._metrics["train" if self.model.training else "eval"]
        tokens = int(self._gather([sum(map(len, completion_ids_list))]).sum())
        metrics["tokens"].append(float(tokens))
        if not filler.all():
            metrics["accuracy"].append(right[~filler].float().mean().item())
        if self.model.training:
            self.budget.generated_tokens += tokens
            metrics["generated_tokens"] = [float(self.generated_tokens)]
        return rewards

    # ------------------------------------------------------------------------------------------------ advantages
    def _advantages(self, corrections: Layer, drafts: Layer, of_trl: torch.Tensor) -> torch.Tensor:
        """Compute A_ij of every correction by the chosen rule: (rows,)."""
        args, rewards, before = self.args, corrections.rewards, drafts.rewards[corrections.parents]
        if args.correction_advantage == "difference":
            return advantages.difference_advantages(rewards, before)
        if args.correction_advantage == "progress":
            questions = torch.tensor(corrections.questions, device=rewards.device)
            return advantages.progress_advantages(rewards, before, questions, args.progress_bonus, self.scale_rewards)
        if self.multi_objective_aggregation != "sum_then_normalize":
            return of_trl  # several rewards, each normalised by itself
        found = advantages.group_advantages(corrections.all_rewards, args.num_corrections, self.scale_rewards)
        # equal to `of_trl` to the bit, and written where a reader finds it
        return found.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def _set_advantages(self, batch: dict, corrections: Layer, drafts: Layer) -> dict:
        """Put the advantages into TRL's batch, on the rows that are trained on, and log what the corrections changed."""
        used = corrections.real.to(self.accelerator.device) & trained_on(corrections.right, self.args.keep_corrections)
        batch["advantages"] = self._advantages(corrections, drafts, batch["advantages"])
        total, some = self._gather([[len(used), int(used.sum())]]).sum(0).tolist()
        if some < total:
            batch["advantages"] = batch["advantages"] * used
            # TRL's mask of tokens that are seen but not trained on; every forward pass reads the same text
            batch["tool_mask"] = used[:, None].expand_as(batch["completion_mask"]).long()
            tokens = (batch["completion_mask"] * batch["tool_mask"]).sum()
            batch["num_items_in_batch"] = self.accelerator.gather(tokens).sum()
            if self.loss_type in MEAN_OVER_ROWS:  # it counts the rows that are not trained on; this undoes that
                batch["share"] = torch.tensor(total / max(some, 1), device=self.accelerator.device)
        self._log_changes(batch["advantages"], changes(drafts, corrections, used, self.answer_of), total)
        return batch

    # --------------------------------------------------------------------------------------------- sum of losses
    def _prepare_inputs(self, generation_batch):
        self._fresh = None
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return {**inputs, "corrections": [[batch] for batch in self._fresh]}
        if self._fresh is not None:  # otherwise the buffered ones are still in use, as in TRL
            most = inputs["prompt_ids"].numel() + inputs["completion_ids"].numel()
            copies, seed = self.args.num_corrections, self._seed(0, "split")
            self._pieces = [self._split(batch, copies, most, seed) for batch in self._fresh]
        now = self._step % self.args.steps_per_generation
        return {**inputs, "corrections": [layer[now] for layer in self._pieces]}

    def _compute_loss(self, model, inputs):
        """Sum w_l L_GRPO over the layers. All terms but the last are differentiated here, one after the other, so that the
        graph of only one is in memory at a time.
        """
        terms = [(self._first_layer, inputs)]
        for number, pieces in enumerate(inputs["corrections"], start=2):
            if self.args.layer_weights[number - 1] != 0.0:
                terms += [(number, piece) for piece in pieces]
        *before, last = terms
        loss = 0.0
        one_by_one = self.model.training and self.accelerator.distributed_type != DistributedType.DEEPSPEED
        ends_step = self.accelerator.sync_gradients
        for number, batch in before:
            with self.accelerator.no_sync(model) if one_by_one else nullcontext():
                self.accelerator.sync_gradients = False  # TRL adapts its entropy coefficient at the end of a step
                term = self._term(model, number, batch)
                self.accelerator.sync_gradients = ends_step
                if one_by_one:
                    self.accelerator.backward(term)
                    term = term.detach()
            loss = loss + term
        term = self._term(model, *last)
        return loss + term if before else term

    def _term(self, model, number: int, batch: dict) -> torch.Tensor:
        """One term of the sum: the layer's weight times TRL's GRPO loss of these rows. ``share`` undoes that TRL's mean counts rows that
        are left out, or sees only a piece of them.
        """
        rows = self._with_gradient(batch) if self._lean and self.model.training else None
        with self._counting(rows), self._metrics_of(number):
            loss = super()._compute_loss(model, batch)
        weight = self.args.layer_weights[number - 1] * float(batch.get("share", 1.0))
        return loss if weight == 1.0 else weight * loss

    # -------------------------------------------------------------------------------------------- small helpers
    @contextmanager
    def _sampling(self, layer: Layer):
        """Set TRL up for a correction layer: groups of H, given prompt tokens, metrics of its own, and random numbers that
        leave layer 1's alone.
        """
        before = self._layer, self.num_generations, self.num_generations_eval
        self._layer, self._shared_copies = layer, self.args.num_corrections
        self.num_generations = self.num_generations_eval = self.args.num_corrections
        devices = torch.cuda.device_count() if self.accelerator.device.type == "cuda" else 0
        try:
            with self._metrics_of(layer.number), torch.random.fork_rng(range(devices)):
                torch.manual_seed(self._seed(layer.number, "sampling"))
                yield
        finally:
            self._layer, self.num_generations, self.num_generations_eval = before
            self._shared_copies = None

    def _gather(self, values: list) -> torch.Tensor:
        """Collect numbers of every process, in the order of the processes."""
        return self.accelerator.gather(torch.tensor(values, device=self.accelerator.device))

    def _next_generation(self) -> None:
        place, draws = (self.model.training, self.state.global_step), self._generation[1]
        self._generation = place, draws + 1 if place == self._generation[0] else 0

    def _seed(self, layer: int, purpose: str) -> int:
        """Derive a seed from where in the run we are alone, so that a resumed run draws what the whole one would have."""
        (place, draw), process = self._generation, self.accelerator.process_index
        text = f"{self.args.seed}|{place}|{draw}|{process}|{layer}|{purpose}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
