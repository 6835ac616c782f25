"""Multi-Layer GRPO on top of TRL's `GRPOTrainer` (paper: arXiv 2506.04746).

Layer 1 is TRL's GRPO, untouched. Layer 2 is one more ordinary TRL generation batch: for every draft that is passed on,
the prompt is (question, draft, guiding phrase), H corrections are sampled, and the advantage is relative to those H.
The policy is trained on the sum

    loss = w_1 L_GRPO(questions) + w_2 L_GRPO(questions + drafts + phrases) [+ w_3 ...]

with both terms at the same policy and in the same optimizer step. The layers are never concatenated: each keeps its own
padding and its own normalisation. No body of TRL is copied; every override calls `super()`. Beside the formula, a joint
step leaves out work that the formula does not need, and leaves the update as it is: a draft is read once for its H
corrections, when they are sampled (`one_prefill`) and when they are trained on (`each_prompt_once`); rows without an
advantage and columns of padding are not computed (`_get_per_token_logps_and_entropies`), and each term is differentiated
before the next is computed (`_compute_loss`).

How this departs from the paper, as far as the paper is known:
1. The paper does not say whether the layers are trained in one step or in turn; we take one joint step
   (``schedule``).
2. Its "dynamic verification" seems to drop failed corrections. With a group baseline the successes alone have zero
   advantage, so all H are kept (``keep_corrections``, see `mgrpo_lib.method.drafts.kept`).
3. Which drafts are passed on is not known; we take ``drafts_per_prompt`` of the G at random, right and wrong alike,
   without a hint which (``select_drafts``).
4. The layer-2 template is known only in structure (see `mgrpo_lib.method.prompts`, and ``phrase_role``).
"""

import hashlib
import inspect
import os
import random
import shutil
from collections import defaultdict, deque
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import PeftModel, PeftType
from transformers import DynamicCache
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import GRPOTrainer

from mgrpo_lib.method.budget import TokenBudget
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.drafts import Rollouts, changes, choose_drafts, correction_advantages, kept
from mgrpo_lib.method.prompts import check_context, correction_ids, correction_prompt, guidance_ids
from mgrpo_lib.method.quantized import adapters_to_float32, is_quantized, keep_4bit_trainable

PACKED_WEIGHTS = (
    "a model in 4 or 8 bits cannot sample through vLLM: the packed weights would be sent to it as they are; set "
    "use_vllm=False, or load the model in bfloat16 with LoRA"
)
# what a row holds of a prompt that it shares, for the backward pass: a copy of keys and values, at most as much of what a
# pass of its own would hold
KEPT_OF_A_PROMPT = 0.15
UNFINISHED = ".unfinished"  # folder of a checkpoint while it is written
MEAN_OVER_ROWS = ("grpo", "dr_grpo", "sapo", "luspo")  # loss types that divide by the number of rows
MEAN_OVER_TOKENS = ("bnpo",)  # that divide by the number of tokens in each micro-batch


def can_share_prompts(model) -> bool:
    """Whether what the model keeps of a prompt are keys and values, which can be copied (the states of recurrent layers
    cannot), and its forward pass takes them, and reads the rest as if all were there: other adapters than LoRA's add to
    each input or look for tokens in it, and some positions are scaled by its length.
    """
    bare = model
    if isinstance(model, PeftModel):
        adapter, bare = model.active_peft_config, model.get_base_model()
        if adapter.peft_type != PeftType.LORA or adapter.alora_invocation_tokens:
            return False
    text = bare.config.get_text_config()
    if (getattr(text, "rope_parameters", None) or {}).get("rope_type") in ("dynamic", "longrope"):
        return False
    layers = set(getattr(text, "layer_types", None) or ())
    taken = inspect.signature(bare.forward).parameters
    takes = {_cache_argument(bare), "use_cache", "logits_to_keep"} <= taken.keys()
    return takes and layers <= {"full_attention", "sliding_attention"}


def _cache_argument(model) -> str:
    """What the forward pass calls keys and values: transformers 5.24 renamed it."""
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    return "past_key_values" if "past_key_values" in inspect.signature(bare.forward).parameters else "cache"


@contextmanager
def one_prefill(model, copies: int):
    """Meanwhile `model.generate` reads each prompt once for the `copies` rows in a row that begin with it."""
    generate, own, name = model.generate, vars(model).get("generate"), _cache_argument(model)

    def from_one_cache(input_ids, attention_mask, **kwargs):
        seen, mask = input_ids[::copies, :-1], attention_mask[::copies, :-1]
        cache = DynamicCache(config=model.config.get_text_config())
        places = (mask.cumsum(1) - 1).clamp(min=0)
        model(input_ids=seen, attention_mask=mask, position_ids=places, logits_to_keep=1, **{name: cache})
        cache.batch_repeat_interleave(copies)
        return generate(input_ids=input_ids, attention_mask=attention_mask, **{name: cache}, **kwargs)

    model.generate = from_one_cache
    try:
        yield
    finally:
        del model.generate
        if own is not None:
            model.generate = own


def each_prompt_once(model, config, written: int):
    """`model` as TRL calls it for log-probabilities of the last `written` tokens, but rows with the same prompt share one
    reading of it: its keys and values are computed once, and the gradients of all the rows flow into them.
    """
    name = _cache_argument(model)

    def forward(input_ids, attention_mask, labels, **kwargs):
        read = input_ids.shape[1] - written - 1  # the prompt's last token predicts a row's first: it stays with the row
        seen = torch.stack([input_ids[:, :read], attention_mask[:, :read]])
        (prompts, mask), prompt_of = seen.unique(dim=1, return_inverse=True) if read > 0 else (seen, None)
        if len(prompts) == len(input_ids):
            return model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)
        cache = DynamicCache(config=config)
        model(input_ids=prompts, attention_mask=mask, use_cache=True, logits_to_keep=1, **{name: cache})
        cache.batch_select_indices(prompt_of.cpu())  # a model's layers may lie on several devices
        own = {"input_ids": input_ids[:, read:], "labels": labels[:, read:]}
        return model(**own, attention_mask=attention_mask, **{name: cache}, **kwargs)

    return forward


class MGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` with correction layers. Use it like `GRPOTrainer`, with an `MGRPOConfig`.

    With ``num_layers=1``, or (joint schedule, CPU or one CUDA device, no vLLM) with weight 0 on every later layer, it
    trains bit for bit as `GRPOTrainer` does. A completion counts as right if the first reward function gives it more than 0.5. A model in 4 bits gets adapters in
    float32 and may be evaluated before it is trained.

    Logged beside TRL's metrics: ``accuracy`` and ``tokens`` of layer 1; the same and all of TRL's for the second layer as
    ``layer2/...``, with ``fixed``, ``broken``, ``kept``, ``copied``, ``answer_changed``, ``edit_distance`` and ``used``; ``generated_tokens``.
    `mgrpo_lib.experiment.train.METRICS` says what each means.

    Raises:
        ValueError: no `MGRPOConfig`; 4 bits with vLLM; with more than one layer: tools, environments, a rollout function,
            images, a stream of questions in the alternating schedule, a router loss where rows are left out, a chat
            template that cannot take a later turn, more tokens than the model's context may hold.
    """

    _name = "MGRPO"

    def __init__(self, model, reward_funcs, args: MGRPOConfig, *rest, **kwargs):
        if not isinstance(args, MGRPOConfig):
            raise ValueError(f"args is a {type(args).__name__}; pass an MGRPOConfig")
        quantization = kwargs.get("quantization_config") or (args.model_init_kwargs or {}).get("quantization_config")
        if args.use_vllm and (is_quantized(model) or quantization is not None):
            raise ValueError(PACKED_WEIGHTS)
        others = [name for name in ("tools", "environment_factory", "rollout_func") if kwargs.get(name)]
        if others and args.num_layers > 1:
            raise ValueError(f"{others[0]} makes prompts and turns of its own; use num_layers=1 with it")
        super().__init__(model, reward_funcs, args, *rest, **kwargs)
        if is_quantized(self.model):
            if args.use_vllm:  # the checkpoint itself is packed
                raise ValueError(PACKED_WEIGHTS)
            keep_4bit_trainable(self.model)
            adapters_to_float32(self.model)
        self.add_callback(TokenBudget)
        self._layer = 1  # the layer that is being generated
        self._prompt_ids: list[list[int]] = []  # its prompts
        self._rollouts: Rollouts | None = None  # of the last generated layer
        self._drafts: Rollouts | None = None  # alternating schedule: what the next step's layer corrects
        self._main_layer = 1  # the layer in TRL's own buffer: above 1 only in the alternating schedule
        self._correction_batches: list[dict] | None = None  # layers >= 2 of a generation; None: nothing new
        self._correction_slices: list[list[list[dict]]] = []  # the same: layers, micro-batches, pieces of them
        self._lean = args.num_layers > 1 and any(args.layer_weights[1:])  # otherwise TRL is to be left as it is
        self._counted: torch.Tensor | None = None  # (rows,) bool: whose log-probabilities matter; None: all
        self._unfinished: str | None = None  # where a checkpoint is being written
        self._draw_key, self._draw = None, 0
        if args.num_layers == 1:
            return
        self._check_data()
        if self.aux_loss_enabled and args.leaves_rows_out:
            raise ValueError(
                "the router loss of this mixture-of-experts model would be scaled up with the rows that are trained on; set "
                "router_aux_loss_coef=0, or pass on and keep all"
            )
        self._guidance = self._guidance_tokens()
        self._check_context()
        size = self._logs["prompt"].maxlen * (args.num_layers + 1) * args.num_corrections  # room for the later layers
        for key, value in self._logs.items():
            self._logs[key] = (
                defaultdict(lambda: deque(maxlen=size)) if isinstance(value, defaultdict) else deque(maxlen=size)
            )

    @property
    def generated_tokens(self) -> int:
        """Tokens sampled in training since the start: all layers, all processes, fillers too."""
        return self._count.generated_tokens

    @property
    def _count(self) -> TokenBudget:
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, TokenBudget))

    # ------------------------------------------------------------------------------------------ overrides of TRL
    def _get_train_sampler(self, dataset=None):
        sampler = super()._get_train_sampler(dataset)
        if self.args.schedule == "alternating":  # a batch of questions serves every layer in turn
            sampler.repeat_count *= self.args.num_layers
        return sampler

    def _tokenize_prompts(self, prompts):
        if self._layer > 1:
            return self._prompt_ids, None, {}  # exact tokens, set by `_correct`
        out = super()._tokenize_prompts(prompts)
        self._prompt_ids = out[0]
        return out

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """TRL's; but the H corrections of a draft begin from one reading of (question, draft, phrase)."""
        arguments = prompt_ids, images, multimodal_fields, num_generations, has_tool_images
        # where the weights are cut among processes, only TRL's own call gathers them
        cut = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        elsewhere = self.use_vllm or self.use_transformers_continuous_batching
        model = self.accelerator.unwrap_model(self.model_wrapped)
        if self._layer == 1 or elsewhere or cut or not can_share_prompts(model):
            return super()._generate_single_turn(*arguments)
        with one_prefill(model, self.args.num_corrections):
            return super()._generate_single_turn(*arguments)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs
    ):
        """TRL's, of fewer rows and columns, and of each prompt once. A row without an advantage has no gradient (where
        `_counted` says so): its ratio is taken as 1 and its entropy as the mean of the others, so that every mean in TRL
        keeps its denominator.
        """
        if not (self._lean and self.model.training):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs
            )
        counted = torch.ones_like(attention_mask[:, 0]).bool() if self._counted is None else self._counted
        if not counted.any():  # every process goes through the model as often; the shortest row will do
            counted = torch.arange(len(counted), device=counted.device) == attention_mask.sum(1).argmin()
        columns = attention_mask[counted].any(0)
        columns[-logits_to_keep - 1 : -logits_to_keep + 1 or None] = True  # the last token read and the first written
        written = columns[-logits_to_keep:]
        if self._shares_prompts:
            model = each_prompt_once(model, self.model.config.get_text_config(), int(written.sum()))
        few = super()._get_per_token_logps_and_entropies(
            model,
            input_ids[counted][:, columns],
            attention_mask[counted][:, columns],
            int(written.sum()),
            batch_size,
            **kwargs,
        )
        place = counted[:, None] & written
        logps = few[0].new_zeros(place.shape).masked_scatter(place, few[0])
        if few[1] is None:
            return logps, *few[1:]
        mask = attention_mask[counted][:, -logits_to_keep:][:, written]
        mean = (few[1].detach() * mask).sum() / mask.sum().clamp(min=1)
        return logps, mean.expand(place.shape).masked_scatter(place, few[1]), few[2]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rows, group = len(prompts), self.num_generations if self.model.training else self.num_generations_eval
        if self._layer == 1:
            self._questions = [row // group for row in range(rows)]
        if self.args.num_layers > 1:
            self._log_completion_extra("layer", [self._layer] * rows)
        # (rows of all processes, functions)
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        filler = self._gather([int(question < 0) for question in self._questions]).bool()
        rewards[filler] = torch.nan  # TRL: no reward, no advantage, not in the mean
        right = rewards[:, 0] > 0.5
        weighted = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        weighted[rewards.isnan().all(1)] = torch.nan
        mine = slice(self.accelerator.process_index * rows, (self.accelerator.process_index + 1) * rows)
        self._rollouts = Rollouts(
            inputs, prompts, self._prompt_ids, completions, completion_ids_list, self._questions, weighted[mine], right[mine]
        )  # fmt: skip
        metrics = self._metrics["train" if self.model.training else "eval"]
        tokens = int(self._gather([sum(map(len, completion_ids_list))]).sum())
        metrics["tokens"].append(float(tokens))
        if not filler.all():
            metrics["accuracy"].append(right[~filler].float().mean().item())
        if self.model.training:
            self._count.generated_tokens += tokens
            metrics["generated_tokens"] = [float(self.generated_tokens)]
        return rewards

    def _generate_and_score_completions(self, inputs):
        if self._layer > 1:
            return super()._generate_and_score_completions(inputs)
        key = (self.model.training, self.state.global_step)
        self._draw, self._draw_key = (self._draw + 1 if key == self._draw_key else 0), key
        later = range(2, self.args.num_layers + 1)
        if self.args.schedule == "joint" or not self.model.training:
            batch = super()._generate_and_score_completions(inputs)
            self._correction_batches = [self._correct(layer) for layer in later]
            return batch
        steps = self.state.global_step * self.args.gradient_accumulation_steps
        self._main_layer = 1 + steps // (self.args.steps_per_generation * self.num_iterations) % self.args.num_layers
        if self._main_layer == 1:
            batch = super()._generate_and_score_completions(inputs)
        else:
            self._rollouts = self._drafts
            batch = self._correct(self._main_layer)
        self._drafts, self._correction_batches = self._rollouts, []
        return batch

    def _prepare_inputs(self, generation_batch):
        self._correction_batches = None
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return {**inputs, "corrections": [[batch] for batch in self._correction_batches]}
        slices = self.args.steps_per_generation
        if self._correction_batches is not None:  # otherwise the buffered ones are still in use, as in TRL
            most = inputs["prompt_ids"].numel() + inputs["completion_ids"].numel()
            self._correction_slices = [self._split(batch, slices, most) for batch in self._correction_batches]
        return {**inputs, "corrections": [layer[self._step % slices] for layer in self._correction_slices]}

    def _compute_loss(self, model, inputs):
        """The objective: sum over the layers of weight times TRL's GRPO loss. All terms but the last are differentiated
        here, one after the other, so that the graph of only one is in memory at a time.
        """
        terms = [(self._main_layer if self.model.training else 1, inputs)]
        for layer, pieces in enumerate(inputs["corrections"], start=2):
            if self.args.layer_weights[layer - 1] != 0.0:
                terms += [(layer, piece) for piece in pieces]
        before, last, loss = terms[:-1], terms[-1], 0.0
        in_turn = self.model.training and self.accelerator.distributed_type != DistributedType.DEEPSPEED
        for layer, batch in before:
            with self.accelerator.no_sync(model) if in_turn else nullcontext():
                term = self._term(model, layer, batch)
                if in_turn:
                    self.accelerator.backward(term)
                    term = term.detach()
            loss = loss + term
        term = self._term(model, *last)
        return loss + term if before else term

    def _get_output_dir(self, trial):
        return self._unfinished or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        """A checkpoint takes its name once it is whole: a training that is killed meanwhile leaves none that is cut off. On
        several machines, each with a disk of its own, and where its address is noted while it is written, it has it at once.
        """
        several_machines = int(os.environ.get("LOCAL_WORLD_SIZE", self.args.world_size)) < self.args.world_size
        if several_machines or self.args.push_to_hub or self.args.metric_for_best_model:
            super()._save_checkpoint(model, trial)
            return
        folder = Path(self._get_output_dir(trial))
        unfinished = folder / UNFINISHED
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a training that was killed
        self.accelerator.wait_for_everyone()
        self._unfinished = str(unfinished)
        try:
            super()._save_checkpoint(model, trial)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(unfinished, ignore_errors=True)  # on a full disk every byte counts
            raise
        finally:
            self._unfinished = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            whole = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            shutil.rmtree(whole, ignore_errors=True)
            (unfinished / whole.name).rename(whole)
            rotate_checkpoints(str(folder), self.args.save_total_limit, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def _term(self, model, layer: int, batch: dict) -> torch.Tensor:
        self._counted = self._with_gradient(batch) if self._lean and self.model.training else None
        try:
            with self._metrics_of(layer):
                loss = super()._compute_loss(model, batch)
        finally:
            self._counted = None
        weight = self.args.layer_weights[layer - 1] * float(batch.get("share", 1.0))
        return loss if weight == 1.0 else weight * loss

    def _with_gradient(self, batch: dict) -> torch.Tensor:
        """(rows,) bool: the rows that move the policy. Without an advantage a row does so only through a KL term, an
        entropy bonus or a router's loss; and the quantile of entropies is taken over all rows.
        """
        if self.beta != 0.0 or self._needs_whole_batches:
            return torch.ones_like(batch["advantages"], dtype=torch.bool)
        return batch["advantages"] != 0.0

    @property
    def _shares_prompts(self) -> bool:
        """Whether rows can share the reading of a prompt: not where the forward pass runs again for the backward pass, where
        it is wrapped for several processes, where a router's work on each token is counted, nor where each row has its own
        dropout.
        """
        if self.accelerator.distributed_type != DistributedType.NO or self.aux_loss_enabled:
            return False
        if self.args.gradient_checkpointing or not self.args.disable_dropout:
            return False
        return can_share_prompts(self.accelerator.unwrap_model(self.model))

    @property
    def _needs_whole_batches(self) -> bool:
        """Whether TRL takes a mean or a quantile over the rows of a micro-batch that no ``share`` puts right."""
        return self._entropy_bonus_enabled or self.aux_loss_enabled or self.top_entropy_quantile < 1.0

    # ------------------------------------------------------------------------------------------ a correction layer
    def _correct(self, layer: int) -> dict[str, torch.Tensor]:
        """Samples and scores H corrections of each chosen draft of the layer before: a TRL batch of (drafts * H) rows,
        groups contiguous. ``share`` is there if some rows are not trained on.
        """
        args, drafts = self.args, self._rollouts
        rng = random.Random(self._seed(layer, "choice"))
        chosen = choose_drafts(drafts.questions, drafts.right.tolist(), args.drafts_per_prompt, args.select_drafts, rng)
        # every process samples as many rows, and each micro-batch holds as many: the rest are fillers
        most, unit = max(1, int(self._gather([len(chosen)]).max())), args.drafts_multiple
        filled = chosen + [0] * (-(-most // unit) * unit - len(chosen))
        rows, prompt_ids = [], []
        for i in filled:
            phrase = rng.choice(args.phrases)
            prompt = correction_prompt(drafts.prompts[i], drafts.completions[i], phrase, args.phrase_role)
            ends = set(self.eos_token_ids)
            ids = correction_ids(drafts.prompt_ids[i], drafts.completion_ids[i], self._guidance[phrase], ends)
            rows += [{**drafts.inputs[i], "prompt": prompt} for _ in range(args.num_corrections)]
            prompt_ids += [ids] * args.num_corrections
        parents = [i for i in filled for _ in range(args.num_corrections)]
        real = len(chosen) * args.num_corrections
        questions = [drafts.questions[i] if row < real else -1 for row, i in enumerate(parents)]
        with self._generating(layer, prompt_ids, questions):
            batch = super()._generate_and_score_completions(rows)
            return self._rewarded(batch, drafts, parents, self._rollouts)

    def _rewarded(self, batch: dict, drafts: Rollouts, parents: list[int], corrections: Rollouts) -> dict:
        """The batch with the advantages of the chosen rule, on the rows that are trained on; logs what changed."""
        args, device = self.args, self.accelerator.device
        questions = torch.tensor(corrections.questions, device=device)
        if args.correction_advantage != "group":
            before, scale = drafts.rewards[parents], args.scale_rewards != "none"
            rule = args.correction_advantage, corrections.rewards, before, questions, args.progress_bonus, scale
            batch["advantages"] = correction_advantages(*rule)
        used = (questions >= 0) & kept(corrections.right, args.keep_corrections)
        total, some = self._gather([[len(parents), int(used.sum())]]).sum(0).tolist()
        if some < total:
            batch["advantages"] = batch["advantages"] * used
            # TRL's mask of tokens that are seen but not trained on; every forward pass reads the same text
            batch["tool_mask"] = used[:, None].expand_as(batch["completion_mask"]).long()
            batch["num_items_in_batch"] = self.accelerator.gather(
                (batch["completion_mask"] * batch["tool_mask"]).sum()
            ).sum()
            if self.loss_type in MEAN_OVER_ROWS:  # it counts the rows that are not trained on; this undoes that
                batch["share"] = torch.tensor(total / max(some, 1), device=device)
        log = self._logs["advantages"]  # TRL has logged its own
        advantages = reversed(self.accelerator.gather(batch["advantages"]).tolist())
        for place, advantage in zip(range(-1, -len(log) - 1, -1), advantages, strict=False):
            log[place] = advantage
        changed = changes(drafts, parents, corrections, used)
        counts = self._gather([list(changed.values())]).sum(0).tolist()
        metrics = self._metrics["train" if self.model.training else "eval"]
        (constant,) = metrics.pop("frac_reward_zero_std")
        if counts[0]:
            if args.num_corrections > 1:  # TRL took fillers for groups with a signal; a group of one has none to lack
                metrics["frac_reward_zero_std"].append(min(1.0, constant * total / counts[0]))
            for name, count in list(zip(changed, counts, strict=True))[1:]:
                metrics[name].append(count / counts[0])
        return batch

    @contextmanager
    def _generating(self, layer: int, prompt_ids: list[list[int]], questions: list[int]):
        """TRL as layer `layer` needs it: groups of H, given prompt tokens, metrics of its own, and random numbers that
        leave layer 1's alone.
        """
        saved = self._layer, self.num_generations, self.num_generations_eval
        self._layer, self._prompt_ids, self._questions = layer, prompt_ids, questions
        self.num_generations = self.num_generations_eval = self.args.num_corrections
        devices = torch.cuda.device_count() if self.accelerator.device.type == "cuda" else 0
        try:
            with self._metrics_of(layer), torch.random.fork_rng(range(devices)):
                torch.manual_seed(self._seed(layer, "sampling"))
                yield
        finally:
            self._layer, self.num_generations, self.num_generations_eval = saved

    @contextmanager
    def _metrics_of(self, layer: int):
        """Puts what TRL logs meanwhile under ``layer<layer>/``, beside layer 1's and not into its means."""
        if layer == 1:
            yield
            return
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

    def _split(self, batch: dict[str, torch.Tensor], slices: int, most: int) -> list[list[dict[str, torch.Tensor]]]:
        """Cuts a layer into as many micro-batches as TRL cuts layer 1, and each of these into as many pieces as it takes
        for none to compute more than `most` tokens, padding counted: about the memory that layer 1 needs in plain GRPO.

        Rows are in random order, as in TRL. Where all micro-batches fall into one optimizer step, so that the order does
        not matter, the corrections of a draft stay together, those with an advantage come first, and the short ones
        before the long ones: prompts are shared and there is less padding.
        """
        rows = len(batch["advantages"])
        draft = torch.arange(rows, device=self.accelerator.device) // self.args.num_corrections
        counted, shares = self._with_gradient(batch), self._shares_prompts
        read, written = batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1)
        if self.args.gradient_accumulation_steps % slices == 0 and self.num_iterations == 1:
            longest = ((read + written) * counted).view(-1, self.args.num_corrections).amax(1)
            longest[longest == 0] = int((read + written).max()) + 1  # no advantage
            order = longest[draft].argsort(stable=True)
        else:
            seed = torch.Generator().manual_seed(self._seed(0, "split"))
            order = torch.randperm(rows, generator=seed).to(self.accelerator.device)
        parts = order.chunk(slices)

        def computed(piece: torch.Tensor) -> float:
            piece = piece[counted[piece]]
            if not len(piece):
                return 0
            readings = len(draft[piece].unique()) + KEPT_OF_A_PROMPT * len(piece) if shares else len(piece)
            return readings * int(read[piece].max()) + len(piece) * int(written[piece].max())

        possible = 1 if self._needs_whole_batches else len(parts[-1])
        pieces = 1
        while (
            pieces < possible and max(computed(piece) for part in parts for piece in part.tensor_split(pieces)) > most
        ):
            pieces += 1
        pieces = int(self._gather([pieces]).max())
        return [[self._piece(batch, piece, part) for piece in part.tensor_split(pieces)] for part in parts]

    def _piece(self, batch: dict, rows: torch.Tensor, micro_batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Some rows of a micro-batch, with the ``share`` that its loss has in that of the micro-batch."""
        piece = {key: value if value.ndim == 0 else value[rows] for key, value in batch.items()}
        if self.loss_type in MEAN_OVER_ROWS:
            share = len(rows) / len(micro_batch)
        elif self.loss_type in MEAN_OVER_TOKENS:
            share = batch["completion_mask"][rows].sum() / batch["completion_mask"][micro_batch].sum()
        else:  # the others divide by the tokens of the whole generation
            share = 1.0
        if len(rows) < len(micro_batch):
            piece["share"] = share * batch.get("share", torch.ones((), device=rows.device))
        return piece

    # ------------------------------------------------------------------------------------------ small helpers
    def _gather(self, values: list) -> torch.Tensor:
        """Numbers of every process, in the order of the processes."""
        return self.accelerator.gather(torch.tensor(values, device=self.accelerator.device))

    def _seed(self, layer: int, purpose: str) -> int:
        """A seed that depends only on where in the run we are, so that a resumed run draws what the whole one would
        have drawn.
        """
        place = f"{self.args.seed}|{self._draw_key}|{self._draw}|{self.accelerator.process_index}|{layer}|{purpose}"
        return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), "big")

    def _guidance_tokens(self) -> dict[str, list[int]]:
        """The tokens between a draft and its correction, for each phrase."""
        first = next(iter(self.train_dataset))["prompt"]
        template = {"chat_template": self.chat_template, **self.chat_template_kwargs}
        return {
            phrase: guidance_ids(self._tokenizer, first, phrase, self.args.phrase_role, **template)
            for phrase in self.args.phrases
        }

    def _check_data(self) -> None:
        """Refuses questions that a correction layer cannot go on from."""
        first = next(iter(self.train_dataset))
        prompt = first["prompt"]
        parts = [] if isinstance(prompt, str) else [message["content"] for message in prompt]
        if "image" in first or "images" in first or any(not isinstance(part, str) for part in parts):
            raise ValueError("correction layers read text alone; use num_layers=1 for questions with images")
        if self.args.schedule == "alternating" and not isinstance(self.train_dataset, Dataset):
            raise ValueError(
                "schedule='alternating' needs the questions of a turn again, which a stream does not give; use a "
                "datasets.Dataset, or schedule='joint'"
            )

    def _check_context(self) -> None:
        config, attempt = self.model.config.get_text_config(), self.args.max_completion_length
        limits = [getattr(config, "max_position_embeddings", None)]
        limits += [self.args.vllm_max_model_length] if self.args.use_vllm else []
        limits = [limit for limit in limits if limit is not None]
        if not limits or attempt is None or not isinstance(self.train_dataset, Dataset):
            return  # no limit, or a stream of questions that cannot be looked through beforehand
        longest = sorted(self.train_dataset["prompt"], key=lambda prompt: len(str(prompt)))[-32:]
        question = max(map(len, super()._tokenize_prompts(longest)[0]))
        phrase = max(map(len, self._guidance.values()))
        check_context(min(limits), question, phrase, self.args.num_layers, attempt)
