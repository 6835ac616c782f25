"""What a profile asks of a GPU, before anything is downloaded or started: parameters, memory by part, tokens, disk, hours.

`python -m mgrpo_lib plan --profile NAME` prints it for every arm, with the assumptions; `fits` is the short answer that
the chain asks for before it starts. Memory is for the longest question and full-length attempts, so it is an upper
estimate; hours rest on a few constants below and are good to perhaps a factor of 1.5; what was measured beside it is in
`benchmarks/results/precision.md`. Only the counting of parameters loads torch, on its meta device, without weights.
"""

import contextlib
import functools
import json
import math
from dataclasses import dataclass

from mgrpo_lib.experiment.settings import ROOT, Config, ConfigError
from mgrpo_lib.method.prompts import PHRASES, phrase_text
from mgrpo_lib.tasks import miniature
from mgrpo_lib.tasks.benchmarks import SETS

GIB = 2**30
QWEN_1_5B = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
MODELS = {  # as their public config.json say
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN_1_5B | {"max_position_embeddings": 32768},
    "Qwen/Qwen2.5-Math-1.5B": QWEN_1_5B | {"max_position_embeddings": 4096},
    "Qwen/Qwen2.5-Math-7B": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2,
    "SmolLM2-135M-Instruct": SMOLLM2,  # the folder that tools/smollm2.py makes
}


@dataclass(frozen=True)
class GPU:
    name: str
    memory: float  # GiB, as nvidia-smi shows it
    tflops: float  # peak of dense 16-bit matrix products with 32-bit sums; vendor's data sheet
    bandwidth: float  # GB/s of its memory; vendor's data sheet
    launch: float  # ms that a decoding step needs for each block at least, in eager PyTorch, however few the rows


# launch: of the T4 from a public benchmark (fp16 Qwen2.5-0.5B, 24 blocks, 24.4 tokens/s at batch 1 on Colab); of the others
# assumed, with faster hosts
GPUS = [
    GPU("T4", 15.0, 65, 320, 1.7),
    GPU("L4", 22.5, 121, 300, 1.1),
    GPU("A100 40 GB", 40.0, 312, 1555, 1.1),
    GPU("A100 80 GB", 80.0, 312, 2039, 1.1),
    GPU("H100 80 GB", 79.6, 989, 3350, 1.1),
]

# tokens of a question on average and at most, estimated from the texts (a word, a digit or a group of signs a token)
QUESTIONS = {
    "gsm8k": (60, 215),
    "math": (75, 1980),
    "math500": (70, 780),
    "minerva_math": (130, 380),
    "olympiadbench": (100, 1210),
    "svamp": (41, 76),
    "multiarith": (40, 57),
    "sums": (16, 22),
    "sums_long": (23, 27),
    "sums_story": (36, 52),
}
# the first 1,900 questions of MATH, in the order in which `mgrpo_lib.tasks.decontamination.draw` takes them, have no longer one than this
FIRST_QUESTIONS = {"math": (1900, 1010)}
OWN_QUESTIONS, MINIATURE_QUESTIONS = (100, 400), (10, 24)
# tokens of turns and the paper's system prompt; of the longest guiding phrase. The miniature's: 2 and 1
TURNS, SYSTEM, PHRASE = 15, 95, 20

MEAN_LENGTH = 0.5  # of max_completion_length: a completion's mean length; the longest of a batch reaches the limit
PADDED_QUESTION = 1.5  # a batch is padded to its longest question: so many times the mean one
EFFICIENCY, BANDWIDTH = 0.25, 0.6  # of peak FLOPs, and of memory bandwidth, that are reached
LAUNCHES = {"dense": 1.0, "4-bit": 1.6, "LoRA": 1.7, "4-bit LoRA": 2.3}  # more and smaller kernels in a block
REWARD_SECONDS = 0.01  # to check one completion
CONTEXT_GIB, FRAGMENTATION = 0.8, 0.2  # CUDA context and workspaces; share of what comes and goes that is lost
TILE = 4096 * 32768  # logits that TRL's chunked head holds at a time (tokens x vocabulary)

ASSUMPTIONS = [
    f"questions: tokens estimated from the texts, {TURNS + SYSTEM} more for the template with the paper's system prompt, {PHRASE} for a phrase",
    f"completions: {MEAN_LENGTH:g} x max_completion_length on average; the longest of a batch reaches it, and with it the "
    "batch's decoding time and padding",
    "memory is for the longest question of the data and attempts of full length; TRL samples all rows of a step at once",
    "4 bits: NF4 with double quantisation on all linear layers; embeddings, output head, norms and biases stay in 16 bits",
    "LoRA on all linear layers but the head, float32: weight, gradient, two Adam states, a copy of the start: 20 bytes each",
    "the reference model is the policy without its adapter; with full training and beta > 0 a second one in float32",
    "one layer's graph is held at a time, a later layer's cut to no more than the first one's; attention never holds scores of length x length",
    "a warm-up (sft_steps) and vLLM, which holds weights of its own, are not counted",
    f"logits in training by TRL's chunked head, {TILE:,} at a time; in sampling one position a row, four copies",
    f"{CONTEXT_GIB} GiB for CUDA, and {FRAGMENTATION:.0%} of activations and cache lost to fragmentation",
    f"training reaches {EFFICIENCY:.0%} of the peak of dense 16-bit products: 1 pass forward, 1 backward for LoRA (2 for full "
    "training), 1 for the reference if beta > 0, 1 if activations are recomputed",
    f"decoding is bound by memory ({BANDWIDTH:.0%} of the bandwidth; 4-bit weights are unpacked in every step: 4.5 bytes a "
    "weight) and by launching kernels ("
    + ", ".join(f"{gpu.name} {gpu.launch}" for gpu in GPUS)
    + " ms a block; x "
    + ", x ".join(f"{factor} {kind}" for kind, factor in LAUNCHES.items())
    + ")",
    f"checking a completion takes {REWARD_SECONDS * 1000:.0f} ms; one GPU, one notebook at a time; loading and downloads not counted",
]


# ------------------------------------------------------------------------------------------------------- the model
@dataclass(frozen=True)
class Model:
    """Sizes of a causal language model, counted on its modules."""

    parameters: int
    linear: tuple[tuple[int, int], ...]  # inputs and outputs of each linear layer but the output head
    head: int  # weights of the output head, also where they are the embeddings
    hidden: int
    intermediate: int
    kv: int  # width of all key heads together
    layers: int
    vocabulary: int
    context: int | None  # tokens; None: no limit

    @property
    def linear_weights(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.linear)


def model_of(cfg: Config) -> Model:
    """The sizes of a profile's model, from `MODELS`, the miniature, or a folder's ``config.json``. Nothing is downloaded.

    Raises:
        ConfigError: a hub id that is not in `MODELS`.
    """
    folder = miniature.SHIPPED if cfg.model == "miniature" else cfg.model_folder
    if folder is None and cfg.model in MODELS:
        return count(json.dumps(MODELS[cfg.model]))
    if folder is None or not (folder / "config.json").is_file():
        raise ConfigError(
            f"the sizes of {cfg.model!r} are not known here, and nothing is downloaded to plan; known: {', '.join(MODELS)}, or a "
            "folder with its config.json"
        )
    return count((folder / "config.json").read_text(encoding="utf-8"))


def look_up(cfg: Config) -> None:
    """Adds a hub model to `MODELS`, from its ``config.json`` alone, if that can be had: for a run, which uses the hub anyway."""
    if cfg.model == "miniature" or cfg.model in MODELS or cfg.model_folder is not None:
        return
    from transformers import AutoConfig

    with contextlib.suppress(OSError, ValueError):  # no hub, no such model, or one with code of its own
        found = AutoConfig.from_pretrained(cfg.model, revision=cfg.model_revision, trust_remote_code=False)
        MODELS[cfg.model] = json.loads(found.to_json_string(use_diff=False))


@functools.lru_cache
def count(config: str) -> Model:
    """The sizes of the model that a ``config.json`` describes, built by transformers on torch's meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = json.loads(config)
    described = AutoConfig.for_model(**values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described)
    head, text = model.get_output_embeddings(), described.get_text_config()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Model(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=tuple((m.in_features, m.out_features) for m in linear),
        head=head.weight.numel(),
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        kv=(getattr(text, "num_key_value_heads", None) or heads) * width,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        context=getattr(text, "max_position_embeddings", None),
    )


def trainable(model: Model, cfg: Config) -> int:
    """Trained parameters: all, or LoRA's two matrices on every linear layer but the head, as `mgrpo_lib.experiment.models.lora_config`
    asks for.
    """
    if cfg.lora_rank == 0:
        return model.parameters
    return sum(cfg.lora_rank * (inputs + outputs) for inputs, outputs in model.linear)


def nf4_bytes(inputs: int, outputs: int) -> int:
    """A linear layer's weights in NF4 with double quantisation, as bitsandbytes stores them: half a byte a weight, a byte
    for each block of 64, a float32 for each 256 blocks, and tables.
    """
    weights = inputs * outputs
    blocks = math.ceil(weights / 64)
    return math.ceil(weights / 2) + blocks + 4 * math.ceil(blocks / 256) + 4 * (16 + 256 + 1)


def weight_bytes(model: Model, cfg: Config) -> int:
    """The base model's weights in the training of an arm; for arm ``base``, as it is evaluated."""
    width = 4 if cfg.model == "miniature" or (cfg.lora_rank == 0 and cfg.arm != "base") else 2
    if not cfg.load_in_4bit:
        return width * model.parameters
    return sum(nf4_bytes(*layer) for layer in model.linear) + width * (model.parameters - model.linear_weights)


# --------------------------------------------------------------------------------------------- rows, lengths, tokens
@dataclass(frozen=True)
class Batch:
    """What a layer samples in one step."""

    rows: int
    prompt: float  # tokens of a prompt on average, with drafts of mean length
    longest: int  # tokens of the longest prompt, with drafts of full length
    padded: float  # tokens that a row is padded to, prompt and completion


def questions(cfg: Config, name: str) -> tuple[int, int]:
    """Tokens of a layer-1 prompt of a data set, on average and at most."""
    if cfg.template == "miniature":
        return tuple(tokens + 2 for tokens in MINIATURE_QUESTIONS)
    mean, longest = QUESTIONS.get(name, OWN_QUESTIONS)
    first, shorter = FIRST_QUESTIONS.get(name, (0, 0))
    if name == cfg.train_data and cfg.train_problems > 0 and cfg.train_problems + cfg.validation_problems <= first:
        longest = shorter
    template = TURNS + (SYSTEM if cfg.system_prompt is None else len(cfg.system_prompt) // 3)
    return mean + template, longest + template


def _phrase(cfg: Config) -> int:
    own = [phrase for phrase in [*cfg.phrases, phrase_text(cfg.eval_phrase)] if phrase not in PHRASES]
    return 1 if cfg.template == "miniature" else max([PHRASE, *(len(phrase) // 3 for phrase in own)])


def batches(cfg: Config) -> list[Batch]:
    """The generation batches of one step, one for each layer, at most: a layer that picks wrong drafts may find fewer."""
    mean, longest = questions(cfg, cfg.train_data)
    attempt, phrase = cfg.max_completion_length, _phrase(cfg)
    out, per_question = [], cfg.num_generations
    for before in range(cfg.num_layers):
        if before:
            per_question = min(cfg.drafts_per_prompt or per_question, per_question) * cfg.num_corrections
        out.append(
            Batch(
                rows=cfg.prompts_per_step * per_question,
                prompt=mean + before * (MEAN_LENGTH * attempt + phrase),
                longest=longest + before * (attempt + phrase),
                padded=PADDED_QUESTION * mean + before * (attempt + phrase) + attempt,
            )
        )
    return out


def tokens_per_step(cfg: Config) -> tuple[float, float]:
    """Tokens sampled, and read as prompts, in an optimizer step; the mean over the layers where they take turns."""
    share = cfg.num_layers if cfg.schedule == "alternating" else 1
    sampled = sum(batch.rows for batch in batches(cfg)) * MEAN_LENGTH * cfg.max_completion_length
    return sampled / share, sum(batch.rows * batch.prompt for batch in batches(cfg)) / share


def steps(cfg: Config) -> int:
    """Optimizer steps of an arm; one that matches another's tokens makes as many as those allow."""
    if cfg.match_tokens_of is None:
        return cfg.max_steps
    other = cfg.of_arm(cfg.match_tokens_of)
    return max(1, round(other.max_steps * tokens_per_step(other)[0] / tokens_per_step(cfg)[0]))


# ---------------------------------------------------------------------------------------------------------- memory
def memory(cfg: Config) -> dict[str, dict[str, float]]:
    """Bytes of GPU memory by part, at the peak of each phase of an arm: ``training`` (one micro-batch, forward and
    backward), ``sampling`` (all rows of a step) and ``evaluation``. Arm ``base`` is evaluated alone.
    """
    model = model_of(cfg)
    weights = {"weights": weight_bytes(model, cfg)}
    if cfg.arm == "base":
        return {"evaluation": weights | _evaluation(model, cfg)}
    trained = trainable(model, cfg)
    lora = {"LoRA weights": 4 * trained} if cfg.lora_rank else {}
    state = {"Adam states and start": 12 * trained}
    if cfg.lora_rank == 0 and cfg.beta > 0:
        state["reference model"] = 4 * model.parameters
    if cfg.lora_rank == 0 and cfg.model != "miniature":
        state["16-bit copies by autocast"] = 2 * model.parameters
    joint = batches(cfg)
    sampling = max((_generation(model, cfg, b.rows, b.longest, 10) for b in joint), key=lambda part: sum(part.values()))
    return {
        "training": weights | lora | state | {"gradients": 4 * trained} | _activations(model, cfg, joint),
        "sampling": weights | lora | state | sampling,
        "evaluation": weights | lora | _evaluation(model, cfg),
    }


def _width(cfg: Config) -> int:
    """Bytes of a number in activations and cache: float32 on the CPU, 16 bits on a GPU."""
    return 4 if cfg.model == "miniature" else 2


def _activations(model: Model, cfg: Config, joint: list[Batch]) -> dict[str, float]:
    """Of one micro-batch. A block keeps 18 hidden + 4 intermediate + 2 kv numbers a token for the backward pass (norms in
    float32, attention's inputs, LoRA's inputs, the gated product); recomputed, only its input, and one block's at a time.
    """
    width, parts = _width(cfg), cfg.prompts_per_step * cfg.num_generations // cfg.micro_batch_size
    lengths = [math.ceil(b.rows / parts) * (b.longest + cfg.max_completion_length) for b in joint]
    one_block = width * (18 * model.hidden + 4 * model.intermediate + 2 * model.kv)
    # a joint step cuts a later layer into pieces of no more than the first layer's micro-batch, or of one row
    single = max(b.longest + cfg.max_completion_length for b in joint)
    everything = max(lengths[0], single) if cfg.schedule == "joint" else max(lengths)
    scored = max(math.ceil(b.rows / parts) for b in joint) * cfg.max_completion_length
    head = width * min(TILE, scored * model.vocabulary) + scored * model.hidden * (4 + width)
    if not cfg.gradient_checkpointing:
        return {"activations": everything * model.layers * one_block, "logits": head}
    kept = everything * model.layers * width * model.hidden + everything * one_block
    return {"activations, recomputed": kept, "logits": head}


def _generation(model: Model, cfg: Config, rows: int, prompt: int, live: int) -> dict[str, float]:
    """Cache, and what one block holds while prompts are read or logits while tokens are drawn, whichever is more.

    Args:
        live: bytes for each intermediate number of a token while a prompt is read through LoRA (16-bit base).
    """
    width, attempt = _width(cfg), cfg.max_completion_length
    cache = 2 * model.layers * model.kv * width  # bytes a token
    reading = {
        "KV cache of the prompts": rows * prompt * cache,
        "reading the prompts": rows * prompt * width * (live / 2 * model.intermediate + 8 * model.hidden),
    }
    drawing = {  # each step copies one block's cache to make it longer
        "KV cache": rows * (prompt + attempt) * cache * (1 + 1 / model.layers),
        "logits": rows * model.vocabulary * (12 + width),
    }
    return max(reading, drawing, key=lambda parts: sum(parts.values()))


def _evaluation(model: Model, cfg: Config) -> dict[str, float]:
    """The second attempts of one batch; outside autocast LoRA holds more."""
    longest = max(questions(cfg, name)[1] for name in cfg.benchmarks) + cfg.max_completion_length + _phrase(cfg)
    return _generation(model, cfg, cfg.eval_batch_size, longest, 6 if cfg.arm == "base" else 16)


PASSING = ("activations", "logits", "KV", "reading")  # parts that come and go, beginnings of their names


def total(parts: dict[str, float], reserve: bool = True) -> float:
    """GiB of a phase, with CUDA's own and (`reserve`) what is lost to fragmentation."""
    lost = FRAGMENTATION * sum(n for name, n in parts.items() if name.startswith(PASSING)) if reserve else 0.0
    return (sum(parts.values()) + lost) / GIB + CONTEXT_GIB


def peak(runs: list[Config], phase: str, changes: dict[str, int], reserve: bool = True) -> float:
    """The most GiB that a phase needs in any of the arms, with some settings changed."""
    needs = [memory(run.model_copy(update=changes)) for run in runs]
    return max(total(parts[phase], reserve) for parts in needs if phase in parts)


def cuts(cfg: Config, gib: float, reserve: bool = True) -> dict[str, int] | None:
    """The settings to lower, for all arms alike, until everything fits: empty if it does, None if no cut helps.

    Args:
        gib: memory of the GPU.
        reserve: whether what may be lost to fragmentation must fit as well.
    """
    base, runs = cfg.of_arm("base"), [cfg.of_arm(arm) for arm in cfg.arms]
    changes: dict[str, int] = {}

    def largest(name: str, phase: str, which: list[Config], choices) -> bool:
        """Takes the largest choice with which the phase fits."""
        for value in sorted(choices, reverse=True):
            if peak(which, phase, {**changes, name: value}, reserve) <= gib:
                changes[name] = value
                return True
        return False

    if peak([base, *runs], "evaluation", {}, reserve) > gib and not largest(
        "eval_batch_size", "evaluation", [base, *runs], range(1, cfg.eval_batch_size)
    ):
        return None
    if not runs:
        return changes
    if peak(runs, "sampling", {}, reserve) > gib and not largest(
        "prompts_per_step", "sampling", runs, range(1, cfg.prompts_per_step)
    ):
        return None
    prompts = changes.get("prompts_per_step", cfg.prompts_per_step)
    rows = math.gcd(*(prompts * run.num_generations for run in runs))
    whole = all(prompts * run.num_generations % run.micro_batch_size == 0 for run in runs)
    if not whole or peak(runs, "training", changes, reserve) > gib:
        choices = [n for n in range(1, max(run.micro_batch_size for run in runs) + 1) if rows % n == 0]
        if not largest("micro_batch_size", "training", runs, choices):
            return None
    return changes


def fits(cfg: Config, gib: float, reserve: bool = True) -> str:
    """Empty if a profile's experiment fits into a GPU's memory, else what to cut, in a sentence.

    Args:
        gib: memory of the GPU, GiB.
        reserve: whether what may be lost to fragmentation must fit as well.
    """
    advice = cuts(cfg, gib, reserve)
    if advice is None:
        kind = "gradient_checkpointing=true or " if not cfg.gradient_checkpointing else ""
        kind = "load_in_4bit=true with lora_rank, or " + kind if not cfg.load_in_4bit else kind
        return f"does not fit, even with the smallest batches: {kind}a smaller max_completion_length or model is needed"
    if not advice:
        return ""
    return "does not fit: cut " + ", ".join(f"{name} to {value}" for name, value in advice.items())


# ------------------------------------------------------------------------------------------------------------ time
def _kind(cfg: Config) -> str:
    if cfg.arm == "base":
        return "4-bit" if cfg.load_in_4bit else "dense"
    if cfg.lora_rank == 0:
        return "dense"
    return "4-bit LoRA" if cfg.load_in_4bit else "LoRA"


def _pass_seconds(model: Model, cfg: Config, gpu: GPU) -> float:
    """The least that any pass through the model takes: launching its kernels, and moving its weights."""
    full = cfg.lora_rank == 0 and cfg.arm != "base"  # float32 weights, cast for every pass
    per_weight = 4.5 if cfg.load_in_4bit else 8 if full else 2
    moved = per_weight * model.linear_weights + (8 if full else 2) * model.head
    return 1e-3 * gpu.launch * LAUNCHES[_kind(cfg)] * model.layers + moved / (BANDWIDTH * gpu.bandwidth * 1e9)


def _flop_seconds(model: Model, gpu: GPU, tokens: float) -> float:
    """Two operations a weight for each token, forward; attention's own, a few per cent at these lengths, are left out."""
    return 2 * (model.linear_weights + model.head) * tokens / (EFFICIENCY * gpu.tflops * 1e12)


def generation_seconds(cfg: Config, gpu: GPU, rows: int, prompt: float) -> float:
    """Of one batch, until its longest completion is at the limit."""
    model, attempt = model_of(cfg), cfg.max_completion_length
    cache = rows * (prompt + attempt / 2) * 2 * model.layers * model.kv * _width(cfg)
    step = _pass_seconds(model, cfg, gpu) + cache / (BANDWIDTH * gpu.bandwidth * 1e9) + _flop_seconds(model, gpu, rows)
    return _flop_seconds(model, gpu, rows * prompt) + attempt * step


def step_seconds(cfg: Config, gpu: GPU) -> float:
    """Of an optimizer step: sampling, rewards, reference, training."""
    model, layers = model_of(cfg), batches(cfg)
    passes = 1 + (1 if cfg.lora_rank else 2) + cfg.gradient_checkpointing + (cfg.beta > 0)
    parts = cfg.prompts_per_step * cfg.num_generations / cfg.micro_batch_size
    seconds = 0.0
    for batch in layers:
        seconds += generation_seconds(cfg, gpu, batch.rows, batch.padded - cfg.max_completion_length)
        seconds += REWARD_SECONDS * batch.rows
        seconds += passes * _flop_seconds(model, gpu, batch.rows * batch.padded)
        seconds += passes * parts * _pass_seconds(model, cfg, gpu)
    return seconds / (len(layers) if cfg.schedule == "alternating" else 1)


def training_hours(cfg: Config, gpu: GPU) -> float:
    return steps(cfg) * step_seconds(cfg, gpu) / 3600


def evaluation_hours(cfg: Config, gpu: GPU) -> float:
    """Of one arm and seed: validation, both attempts, samples, and its share of the controls (see `mgrpo_lib.experiment.controls`).
    For arm ``base``: its own, once for the whole experiment.
    """
    sizes = {name: _test_size(cfg, name) for name in cfg.benchmarks}
    everything, probed = sum(sizes.values()), sum(min(n, cfg.probe_problems) for n in sizes.values())
    seconds = 2 * _attempts(cfg, gpu, cfg.validation_problems) + 2 * _attempts(cfg, gpu, everything)
    seconds += 2 * _attempts(cfg, gpu, probed * cfg.samples)
    if cfg.arm in cfg.control_arms:
        others = 0 if cfg.arm == "base" else len(cfg.control_arms) - 1  # no draft, another's, and each other arm's
        seconds += (2 + others) * _attempts(cfg, gpu, everything)
        seconds += (len(PHRASES) - isinstance(cfg.eval_phrase, int)) * _attempts(cfg, gpu, probed)
        seconds += 2 * _attempts(cfg, gpu, probed, max(1, cfg.eval_batch_size // 4))
    return seconds / 3600


def cross_hours(cfg: Config, gpu: GPU) -> float:
    """Of one seed: the base model's corrections of the arms' drafts."""
    if "base" not in cfg.control_arms:
        return 0.0
    problems = sum(_test_size(cfg, name) for name in cfg.benchmarks)
    return (len(cfg.control_arms) - 1) * _attempts(cfg.of_arm("base"), gpu, problems) / 3600


def _attempts(cfg: Config, gpu: GPU, problems: int, batch: int | None = None) -> float:
    """Seconds of one attempt at each of some problems; first and second attempts are taken alike."""
    batch = min(batch or cfg.eval_batch_size, max(problems, 1))
    mean = sum(questions(cfg, name)[0] for name in cfg.benchmarks) / len(cfg.benchmarks)
    prompt = mean + MEAN_LENGTH * cfg.max_completion_length / 2
    checked = REWARD_SECONDS * problems
    return math.ceil(problems / batch) * generation_seconds(cfg, gpu, batch, prompt) + checked


def _test_size(cfg: Config, name: str) -> int:
    if name in SETS:
        rows = sum(rows for rows, _ in SETS[name].splits["test"].files.values())
        return min(rows, cfg.test_problems or rows)
    return cfg.test_problems or 500  # a user's file is not read to plan


def hours(cfg: Config, gpu: GPU) -> dict[str, float]:
    """Of the whole experiment on one GPU: training and evaluation of each arm with all its seeds, and of ``base``."""
    base, seeds = cfg.of_arm("base"), len(cfg.seeds)
    out = {"base": evaluation_hours(base, gpu) + seeds * cross_hours(cfg, gpu)}
    for arm in cfg.arms:
        run = cfg.of_arm(arm)
        out[arm] = seeds * (training_hours(run, gpu) + evaluation_hours(run, gpu))
    return out


# ---------------------------------------------------------------------------------------------------------- report
def report(cfg: Config) -> str:
    """The whole plan as text."""
    base, runs = cfg.of_arm("base"), [cfg.of_arm(arm) for arm in cfg.arms]
    model, seeds = model_of(cfg), len(cfg.seeds)
    lines = [
        f"profile {cfg.profile}: {cfg.model}, {model.parameters:,} parameters; {cfg.train_data} -> {', '.join(cfg.benchmarks)}; "
        f"{seeds} seed(s)",
        f"An estimate{_measured()}.",
        *_table(
            ["arm", "trained parameters", "steps", "sampled/step", "read/step", "sampled", "read"], map(_tokens, runs)
        ),
        "Tokens are those of one seed; for all arms and seeds: "
        f"{seeds * sum(steps(run) * tokens_per_step(run)[0] for run in runs):,.0f} sampled, "
        f"{seeds * sum(steps(run) * tokens_per_step(run)[1] for run in runs):,.0f} read.",
        f"Context: {_context(cfg)}",
        f"On disk: {_checkpoint(base, runs)}",
        "",
        "Memory at the peak of each phase, GiB:",
    ]
    for run in [base, *runs]:
        for phase, parts in memory(run).items():
            named = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
            lost = total(parts) - total(parts, reserve=False)
            lines.append(
                f"  {run.arm}, {phase}: {total(parts):.1f} = {named}, CUDA {CONTEXT_GIB}, fragmentation {lost:.2f}"
            )
    if cfg.model == "miniature":
        lines += ["", "The miniature always runs on the CPU, in minutes: no GPU is planned for it."]
    else:
        rows = []
        for gpu in GPUS:
            time = hours(cfg, gpu)
            rows.append(
                [
                    gpu.name,
                    *(f"{h:.1f}" for h in time.values()),
                    f"{sum(time.values()):.1f}",
                    fits(cfg, gpu.memory) or "fits",
                ]
            )
        lines += ["", "Hours on one GPU, all seeds, evaluation included:"]
        lines += _table(["GPU", "base", *cfg.arms, "all", "memory"], rows)
    return "\n".join([*lines, "", "Assumptions:", *(f"- {line}" for line in ASSUMPTIONS)])


def _measured() -> str:
    """How much longer steps took than planned, where some were measured."""
    file = ROOT / "benchmarks" / "results" / "precision.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    times = {
        f"{row['case']} in {row['weights']} on {row['environment']['gpu']}": row["seconds"] / row["planned_seconds"]
        for row in rows
        if "seconds" in row
    }
    if not times:
        return ""
    said = ", ".join(f"{step} took {factor:.1f}" for step, factor in times.items())
    return (
        f"; of the steps measured on a GPU (benchmarks/results/precision.md), {said} times the seconds planned, so count on "
        f"hours {max(times.values()):.1f} times as long"
    )


def _tokens(run: Config) -> list[str]:
    sampled, read = tokens_per_step(run)
    numbers = trainable(model_of(run), run), steps(run), sampled, read, steps(run) * sampled, steps(run) * read
    return [run.arm, *(f"{number:,.0f}" for number in numbers)]


def _context(cfg: Config) -> str:
    """What the longest chain of attempts needs, in training and at test."""
    sets = [cfg.train_data, *cfg.benchmarks]
    layers = [*(cfg.of_arm(arm).num_layers for arm in cfg.arms), 2]
    longest, attempts = max(questions(cfg, name)[1] for name in sets), max(layers)
    needed = longest + attempts * cfg.max_completion_length + (attempts - 1) * _phrase(cfg)
    limit = model_of(cfg).context
    short = " (too long: the trainer will refuse it)" if limit and needed > limit else ""
    return f"{attempts} attempts at the longest question take {needed:,} of {limit or 'unlimited'} tokens{short}"


def _disk(runs: list[Config]) -> tuple[float, float]:
    """GB of one checkpoint (weights and two Adam states, float32), of which an arm keeps two while it trains, and of all
    trained weights.
    """
    sizes = [trainable(model_of(run), run) for run in runs]
    kept = sum(len(run.seeds) * 4e-9 * size for run, size in zip(runs, sizes, strict=True))
    return 12e-9 * max(sizes, default=0), kept


def disk(cfg: Config) -> float:
    """GB that a profile's checkpoints and trained weights take in the results folder, at most."""
    checkpoint, kept = _disk([cfg.of_arm(arm) for arm in cfg.arms])
    return 2 * checkpoint + kept


def _checkpoint(base: Config, runs: list[Config]) -> str:
    checkpoint, kept = _disk(runs)
    often = f"every {base.checkpoint_steps} steps" if base.checkpoint_steps else "never"
    return (
        f"2 checkpoints of {checkpoint:.2f} GB while an arm trains ({often}), {kept:.2f} GB of trained weights "
        f"in the end, {2 * model_of(base).parameters / 1e9:.1f} GB of 16-bit base weights from the hub"
    )


def _table(head: list[str], rows) -> list[str]:
    rows = [head, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
