"""Throughput, exact: a joint step leaves out work that the formula does not need, and the update stays the same.

- A draft is read once for its H corrections, when they are sampled (`one_prefill`) and when they are trained on
  (`each_prompt_once`).
- Rows without an advantage and columns of padding are not computed.
- A later layer is cut into pieces of no more than the memory of layer 1 (`SharedPrompts._split`).
"""

import inspect
from contextlib import contextmanager

import torch
from accelerate.utils import DistributedType
from peft import PeftModel, PeftType
from transformers import DynamicCache
from trl import GRPOTrainer

# what a row holds of a prompt that it shares, for the backward pass: a copy of keys and values, at most as much of what a
# pass of its own would hold
KEPT_OF_A_PROMPT = 0.15
# Settings of generation under which one prefill serves several rows: they change how a token is drawn, not how the cache is
# kept (static caches, beams, assistants, no cache at all)
PLAIN_GENERATION = {
    *("max_new_tokens", "max_length", "do_sample", "pad_token_id", "bos_token_id", "eos_token_id", "suppress_tokens"),
    *(
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "disable_compile",
        "transformers_version",
    ),
}
MEAN_OVER_ROWS = ("grpo", "dr_grpo", "sapo", "luspo")  # loss types that divide by the number of rows
MEAN_OVER_TOKENS = ("bnpo",)  # that divide by the number of tokens in each micro-batch


def can_share_prompts(model) -> bool:
    """True if the model's prompt cache can be copied between rows.

    Recurrent states cannot. Neither can the cache be used where the forward pass reads the rest as another text than with
    the prompt in front. Adapters other than LoRA add to each input, and some positions are scaled by its length.
    """
    bare = model
    if isinstance(model, PeftModel):
        adapter, bare = model.active_peft_config, model.get_base_model()
        if adapter.peft_type != PeftType.LORA or adapter.alora_invocation_tokens:
            return False
    text = bare.config.get_text_config()
    if not has_rotary_positions(bare):
        return False
    if (getattr(text, "rope_parameters", None) or {}).get("rope_type") in ("dynamic", "longrope"):
        return False
    layers = set(getattr(text, "layer_types", None) or ())
    taken = inspect.signature(bare.forward).parameters
    takes = {_cache_argument(bare), "use_cache", "logits_to_keep"} <= taken.keys()
    return takes and layers <= {"full_attention", "sliding_attention"}


def plain_generation(model, config) -> bool:
    """True if the generation configuration, merged with the model's own, keeps an ordinary cache."""
    set_by = {**model.generation_config.to_diff_dict(), **config.to_diff_dict()}
    neutral = (None, False, 1)  # one beam, one sequence
    unusual = {name for name, value in set_by.items() if name[0] != "_" and (value is True or value not in neutral)}
    cached = set_by.get("use_cache", getattr(model.config.get_text_config(), "use_cache", True))
    return unusual <= {*PLAIN_GENERATION, "use_cache"} and cached is not False


def has_rotary_positions(model) -> bool:
    """True if only the distance between two tokens counts, so that columns of padding can go. Learned absolute positions,
    as in GPT-2 and OPT, would shift.
    """
    text = model.config.get_text_config()
    return bool(getattr(text, "rope_parameters", None)) or getattr(text, "rope_theta", None) is not None


def _cache_argument(model) -> str:
    """Name of the forward pass's argument for keys and values: transformers 5.24 renamed it."""
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    return "past_key_values" if "past_key_values" in inspect.signature(bare.forward).parameters else "cache"


@contextmanager
def one_prefill(model, copies: int):
    """Let `model.generate` read each prompt once for the `copies` consecutive rows that begin with it."""
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
    """Wrap `model` as TRL calls it for the log-probabilities of the last `written` tokens: rows with the same prompt share
    one reading of it. Its keys and values are computed once, and the gradients of all the rows flow into them.
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


class SharedPrompts(GRPOTrainer):
    """TRL's trainer with less work per joint step. Where nothing can be left out, TRL's own methods run unchanged."""

    _lean = False  # True: leave work out; otherwise TRL runs unchanged
    _shared_copies: int | None = None  # H while corrections are sampled: so many consecutive rows begin with one prompt
    _counted: torch.Tensor | None = None  # (rows,) bool: whose log-probabilities matter; None: all

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """Sample; the H corrections of a draft begin from one reading of (question, draft, phrase)."""
        arguments = prompt_ids, images, multimodal_fields, num_generations, has_tool_images
        # where the weights are cut among processes, only TRL's own call gathers them
        cut = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        elsewhere = self.use_vllm or self.use_transformers_continuous_batching
        model = self.accelerator.unwrap_model(self.model_wrapped)
        if self._shared_copies is None or elsewhere or cut or not can_share_prompts(model):
            return super()._generate_single_turn(*arguments)
        if not plain_generation(model, self.generation_config):
            return super()._generate_single_turn(*arguments)
        with one_prefill(model, self._shared_copies):
            return super()._generate_single_turn(*arguments)

    @contextmanager
    def _counting(self, rows: torch.Tensor):
        """Compute log-probabilities of these rows alone, meanwhile."""
        self._counted = rows
        try:
            yield
        finally:
            self._counted = None

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs
    ):
        """Compute TRL's numbers of fewer rows and columns, and of each prompt once.

        A row without an advantage has no gradient. Its ratio is taken as 1 and its entropy as the mean of the others, so
        that every mean in TRL keeps its denominator.
        """
        whole = super()._get_per_token_logps_and_entropies
        if not (self._lean and self.model.training):
            return whole(model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs)
        counted = torch.ones_like(attention_mask[:, 0]).bool() if self._counted is None else self._counted
        if not counted.any():  # every process goes through the model as often; the shortest row will do
            counted = torch.arange(len(counted), device=counted.device) == attention_mask.sum(1).argmin()
        columns = attention_mask[counted].any(0) | (not has_rotary_positions(self.model))
        columns[-logits_to_keep - 1 : -logits_to_keep + 1 or None] = True  # the last token read and the first written
        written = columns[-logits_to_keep:]
        length = int(written.sum())
        if self._shares_prompts:
            model = each_prompt_once(model, self.model.config.get_text_config(), length)
        ids, mask = input_ids[counted][:, columns], attention_mask[counted][:, columns]
        few, entropies, *rest = whole(model, ids, mask, length, batch_size, **kwargs)
        place = counted[:, None] & written
        logps = few.new_zeros(place.shape).masked_scatter(place, few)
        if entropies is None:
            return logps, None, *rest
        seen = mask[:, -length:]
        mean = (entropies.detach() * seen).sum() / seen.sum().clamp(min=1)
        return logps, mean.expand(place.shape).masked_scatter(place, entropies), *rest

    def _with_gradient(self, batch: dict) -> torch.Tensor:
        """(rows,) bool: the rows that move the policy. Without an advantage a row does so only through a KL term, an entropy
        bonus or a router's loss. The quantile of entropies is taken over all rows.
        """
        if self.beta != 0.0 or self._needs_whole_batches:
            return torch.ones_like(batch["advantages"], dtype=torch.bool)
        return batch["advantages"] != 0.0

    @property
    def _shares_prompts(self) -> bool:
        """True if rows can share the reading of a prompt in training.

        They cannot where the forward pass runs again for the backward pass, where it is wrapped for several processes or
        compiled, where a router's work on each token is counted, or where each row has its own dropout.
        """
        if self.accelerator.distributed_type != DistributedType.NO or self.aux_loss_enabled:
            return False
        if self.args.gradient_checkpointing or self.args.torch_compile or not self.args.disable_dropout:
            return False
        return can_share_prompts(self.accelerator.unwrap_model(self.model))

    @property
    def _needs_whole_batches(self) -> bool:
        """True if TRL takes a mean or a quantile over the rows of a micro-batch that no ``share`` puts right."""
        return self._entropy_bonus_enabled or self.aux_loss_enabled or self.top_entropy_quantile < 1.0

    def _split(self, batch: dict[str, torch.Tensor], group: int, most: int, seed: int) -> list[list[dict]]:
        """Cut a layer into as many micro-batches as TRL cuts layer 1, and each of these into pieces.

        Rows are in random order, as in TRL. Where all micro-batches fall into one optimizer step, so that the order does not
        matter, the corrections of a draft stay together. Those with an advantage come first, and short ones before long
        ones. Prompts are shared and there is less padding.

        Args:
            group: corrections per draft.
            most: tokens that a piece may compute, padding counted: about the memory that layer 1 needs in plain GRPO.
            seed: of the random order.
        """
        rows, slices = len(batch["advantages"]), self.args.steps_per_generation
        draft = torch.arange(rows, device=self.accelerator.device) // group
        counted, shares = self._with_gradient(batch), self._shares_prompts
        read, written = batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1)
        if self.args.gradient_accumulation_steps % slices == 0 and self.num_iterations == 1:
            longest = ((read + written) * counted).view(-1, group).amax(1)
            longest[longest == 0] = int((read + written).max()) + 1  # no advantage
            order = longest[draft].argsort(stable=True)
        else:
            order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).to(self.accelerator.device)
        parts = order.chunk(slices)

        def computed(piece: torch.Tensor) -> float:
            piece = piece[counted[piece]]
            if not len(piece):
                return 0
            readings = len(draft[piece].unique()) + KEPT_OF_A_PROMPT * len(piece) if shares else len(piece)
            return readings * int(read[piece].max()) + len(piece) * int(written[piece].max())

        possible, pieces = 1 if self._needs_whole_batches else len(parts[-1]), 1
        while pieces < possible and max(computed(p) for part in parts for p in part.tensor_split(pieces)) > most:
            pieces += 1
        pieces = int(self.accelerator.gather(torch.tensor([pieces], device=self.accelerator.device)).max())
        return [[self._piece(batch, piece, part) for piece in part.tensor_split(pieces)] for part in parts]

    def _piece(self, batch: dict, rows: torch.Tensor, micro_batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take some rows of a micro-batch, with the ``share`` that their loss has in that of the micro-batch."""
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
