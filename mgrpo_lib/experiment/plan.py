"""Estimate, before anything is downloaded, whether an experiment fits a GPU and how long it takes: `python -m mgrpo_lib plan`.

Memory is for the longest question and completions of full length, so it is an upper estimate. The one step measured so far
took two thirds of it. Hours may be off by a factor of 2, in either direction; `benchmarks/results/precision.md` has measured
steps beside planned ones. Not counted: downloads, a warm-up (`sft_steps`), and vLLM's own weights.
"""

import math
from typing import NamedTuple

import pandas as pd

from mgrpo_lib.experiment import timing
from mgrpo_lib.experiment.modelsize import Model, model_of
from mgrpo_lib.experiment.settings import Config, load_config
from mgrpo_lib.method.prompts import PHRASES

GIB = 2**30


class GPU(NamedTuple):
    name: str
    memory: float  # GiB, as nvidia-smi shows it
    tflops: float  # peak of dense 16-bit matrix products with 32-bit sums; vendor's data sheet
    bandwidth: float  # GB/s of its memory; vendor's data sheet
    launch: float  # ms that a decoding step needs per block at least, in eager PyTorch, however few the rows


# launch: T4 from a public benchmark (fp16 Qwen2.5-0.5B, 24 blocks, 24.4 tokens/s at batch 1 on Colab); others assumed
GPUS = [
    GPU("T4", 15.0, 65, 320, 1.7),
    GPU("L4", 22.5, 121, 300, 1.1),
    GPU("A100 40 GB", 40.0, 312, 1555, 1.1),
    GPU("A100 80 GB", 80.0, 312, 2039, 1.1),
    GPU("H100 80 GB", 79.6, 989, 3350, 1.1),
    GPU("H200 141 GB", 140.4, 989, 4800, 1.1),
]
# tokens of a question on average and at most, estimated from the texts; test problems (0: as many as are asked for)
QUESTIONS = {
    "gsm8k": (60, 215, 1319),
    "math": (75, 1980, 5000),
    "math500": (70, 780, 500),
    "minerva_math": (130, 380, 272),
    "olympiadbench": (100, 1210, 675),
    "svamp": (41, 76, 300),
    "multiarith": (40, 57, 600),
    "sums": (16, 22, 0),
    "sums_long": (23, 27, 0),
    "sums_story": (36, 52, 0),
}
OWN_QUESTIONS, OWN_PROBLEMS, MINIATURE_QUESTIONS = (100, 400, 0), 500, (10, 24)
FIRST_OF_MATH = 1900, 1010  # so many of MATH's training questions, as they are drawn, have no longer one than this
TURNS, SYSTEM, PHRASE = 15, 95, 20  # tokens of turns, of the paper's system prompt, of the longest guiding phrase

MEAN_LENGTH = 0.5  # of max_completion_length: a completion's mean length; the longest of a batch reaches the limit
PADDED_QUESTION = 1.5  # a batch is padded to its longest question: so many times the mean one
EFFICIENCY, BANDWIDTH = 0.25, 0.6  # of peak FLOPs, and of memory bandwidth, that are reached
LAUNCHES = {"dense": 1.0, "4-bit": 1.6, "LoRA": 1.7, "4-bit LoRA": 2.3}  # more and smaller kernels in a block
REWARD_SECONDS = 0.01  # to check one completion
NF4_BYTES = 0.516  # of a weight: half a byte, and double-quantised scales of blocks of 64
CONTEXT_GIB, FRAGMENTATION = 0.8, 0.2  # CUDA context and workspaces; share of what comes and goes that is lost
TILE = 4096 * 32768  # logits that TRL's chunked head holds at a time (tokens x vocabulary)
ASSUMPTIONS = f"""\
Assumed: a completion has {MEAN_LENGTH:.0%} of max_completion_length on average, and the longest of a batch reaches it.
{EFFICIENCY:.0%} of the GPU's peak and {BANDWIDTH:.0%} of its bandwidth are reached; one notebook runs at a time; downloads are not counted.
Memory is an upper estimate; hours may be off by a factor of 2 (benchmarks/results/precision.md has measured steps)."""


# ---------------------------------------------------------------------------------------- parameters, lengths, tokens
def trainable(cfg: Config) -> int:
    """Return an arm's trained parameters: none, all, or LoRA's two matrices on every linear layer but the head."""
    model = model_of(cfg)
    return 0 if cfg.arm == "base" else cfg.lora_rank * model.widths if cfg.lora_rank else model.parameters


def rows(cfg: Config) -> list[int]:
    """Return the rows that each layer samples in a joint step, at most: a layer of wrong drafts may find fewer."""
    per_question = [cfg.num_generations]
    for _ in range(cfg.num_layers - 1):
        passed_on = min(cfg.drafts_per_prompt, per_question[-1])
        per_question.append(passed_on * cfg.num_corrections)
    return [cfg.prompts_per_step * number for number in per_question]


def prompt(cfg: Config, name: str, drafts: int) -> tuple[float, int, float]:
    """Return a prompt's tokens with so many drafts: on average, at most, and padded in a batch."""
    mean, longest, _ = QUESTIONS.get(name, OWN_QUESTIONS)
    if name == cfg.train_data == "math" and 0 < cfg.train_problems <= FIRST_OF_MATH[0] - cfg.validation_problems:
        longest = FIRST_OF_MATH[1]
    template = TURNS + (SYSTEM if cfg.system_prompt is None else len(cfg.system_prompt) // 3)
    phrase, attempt = PHRASE, cfg.max_completion_length
    if cfg.is_miniature:
        (mean, longest), template, phrase = MINIATURE_QUESTIONS, 2, 1
    full = drafts * (attempt + phrase)
    average = mean + template + drafts * (MEAN_LENGTH * attempt + phrase)
    return average, longest + template + full, PADDED_QUESTION * (mean + template) + full


def tokens_per_step(cfg: Config) -> tuple[float, float]:
    """Return the tokens sampled, and read as prompts, in an optimizer step."""
    read = sum(number * prompt(cfg, cfg.train_data, layer)[0] for layer, number in enumerate(rows(cfg)))
    return sum(rows(cfg)) * MEAN_LENGTH * cfg.max_completion_length, read


def steps(cfg: Config) -> int:
    """Return the optimizer steps of an arm; one that matches another's tokens makes as many as those allow."""
    if cfg.arm == "base" or cfg.match_tokens_of is None:
        return 0 if cfg.arm == "base" else cfg.max_steps
    other = cfg.of_arm(cfg.match_tokens_of)
    return max(1, round(other.max_steps * tokens_per_step(other)[0] / tokens_per_step(cfg)[0]))


# ---------------------------------------------------------------------------------------------------------- memory
def memory(cfg: Config, reserve: bool = True) -> dict[str, float]:
    """Return the GiB of GPU memory at the peak of each phase of an arm: ``training`` (one micro-batch, forward and backward),
    ``sampling`` (all rows of a step) and ``evaluation``, the only phase of arm ``base``.

    Args:
        reserve: whether to count what fragmentation may lose.
    """
    model, trained, lost = model_of(cfg), trainable(cfg), 1 + FRAGMENTATION * reserve
    full = cfg.lora_rank == 0 and cfg.arm != "base"
    weights = (4 if full else 2) * model.parameters + (0 if full else 4 * trained)
    if cfg.load_in_4bit:
        weights -= (2 - NF4_BYTES) * model.linear
    longest = max(prompt(cfg, name, drafts=1)[1] for name in cfg.benchmarks)
    # reading a prompt through LoRA holds more intermediate numbers; most of all outside autocast, in the evaluation
    evaluation = lost * _generation(model, cfg, cfg.eval_batch_size, longest, 6 if cfg.arm == "base" else 16)
    if cfg.arm == "base":
        return {"evaluation": (weights + evaluation) / GIB + CONTEXT_GIB}
    state = 12 * trained  # float32: two Adam states, and a copy of the start
    state += (2 + 4 * (cfg.beta > 0)) * model.parameters if full else 0  # 16-bit copies by autocast; the reference
    layers = [(number, prompt(cfg, cfg.train_data, layer)[1]) for layer, number in enumerate(rows(cfg))]
    sampling = lost * max(_generation(model, cfg, *layer, 10) for layer in layers)
    training = 4 * trained + lost * _activations(model, cfg, layers)
    needs = {"training": state + training, "sampling": state + sampling, "evaluation": evaluation}
    return {phase: (weights + need) / GIB + CONTEXT_GIB for phase, need in needs.items()}


def _activations(model: Model, cfg: Config, layers: list[tuple[int, int]]) -> float:
    """Bytes of one micro-batch's 16-bit activations and logits. A block keeps 18 hidden + 4 intermediate + 2 kv numbers a
    token for the backward pass; recomputed, only its input, and one block's at a time.

    Args:
        layers: rows and longest prompt of each.
    """
    parts, attempt = cfg.prompts_per_step * cfg.num_generations // cfg.micro_batch_size, cfg.max_completion_length
    # a later layer is cut to the first one's micro-batch, or to one row
    tokens = max(cfg.micro_batch_size * (layers[0][1] + attempt), *(longest + attempt for _, longest in layers))
    one_block = 2 * (18 * model.hidden + 4 * model.intermediate + 2 * model.kv)
    scored = max(math.ceil(number / parts) for number, _ in layers) * attempt
    head = 2 * min(TILE, scored * model.vocabulary) + 6 * scored * model.hidden
    if not cfg.gradient_checkpointing:
        return tokens * model.layers * one_block + head
    return tokens * (2 * model.layers * model.hidden + one_block) + head


def _generation(model: Model, cfg: Config, number: int, tokens: int, live: int) -> float:
    """Bytes of cache, and of one block while prompts are read or of logits while tokens are drawn, whichever is more.

    Args:
        number, tokens: rows, and tokens of each one's prompt.
        live: bytes for each intermediate number of a token while a prompt is read.
    """
    cache = 4 * model.layers * model.kv  # bytes a token
    reading = number * tokens * (cache + live * model.intermediate + 16 * model.hidden)
    # each step copies one block's cache to make it longer
    drawing = number * (tokens + cfg.max_completion_length) * cache * (1 + 1 / model.layers)
    return max(reading, drawing + 14 * number * model.vocabulary)


def cuts(cfg: Config, gib: float, reserve: bool = True) -> dict[str, int] | None:
    """Return the batch sizes to lower, for all arms alike, until everything fits; None if no cut helps.

    Args:
        gib: memory of the GPU.
        reserve: whether what fragmentation may lose must fit as well.
    """
    runs = [cfg.of_arm(arm) for arm in ("base", *cfg.arms)]
    changes: dict[str, int] = {}

    def good(phase: str, changes: dict[str, int]) -> bool:
        tried = [run.model_copy(update=changes) for run in runs]
        whole = all(run.prompts_per_step * run.num_generations % run.micro_batch_size == 0 for run in tried)
        return (whole or phase != "training") and all(memory(run, reserve).get(phase, 0) <= gib for run in tried)

    phases = {"evaluation": "eval_batch_size", "sampling": "prompts_per_step", "training": "micro_batch_size"}
    for phase, name in phases.items():
        if good(phase, changes):
            continue
        smaller = range(max(getattr(run, name) for run in runs), 0, -1)
        value = next((value for value in smaller if good(phase, {**changes, name: value})), None)
        if value is None:
            return None
        changes[name] = value
    return changes


def fits(cfg: Config, gib: float, reserve: bool = True) -> str:
    """Return nothing if an experiment fits a GPU's memory, else what to lower, in a sentence; arguments as for `cuts`."""
    advice = cuts(cfg, gib, reserve)
    if advice is None:
        kind = "gradient_checkpointing=true or " if not cfg.gradient_checkpointing else ""
        kind = "load_in_4bit=true with lora_rank, or " + kind if not cfg.load_in_4bit else kind
        return f"does not fit, even with the smallest batches: {kind}a smaller max_completion_length or model is needed"
    return "does not fit: cut " + ", ".join(f"{name} to {value}" for name, value in advice.items()) if advice else ""


def disk(cfg: Config) -> float:
    """Return the GB of checkpoints (two while an arm trains, float32 with two Adam states) and trained weights, at most."""
    sizes = [trainable(cfg.of_arm(arm)) for arm in cfg.arms]
    return 24e-9 * max(sizes, default=0) + 4e-9 * len(cfg.seeds) * sum(sizes)


# ------------------------------------------------------------------------------------------------------------ time
def _pass_seconds(model: Model, cfg: Config, gpu: GPU) -> float:
    """The least that any pass through the model takes: launching its kernels, and moving its weights."""
    trained = cfg.arm != "base"
    kind = " ".join(["4-bit"] * cfg.load_in_4bit + ["LoRA"] * (trained and cfg.lora_rank > 0)) or "dense"
    head = 8 if trained and cfg.lora_rank == 0 else 2  # float32 weights are cast for every pass, 4-bit ones unpacked
    moved = (4.5 if cfg.load_in_4bit else head) * model.linear + head * model.head
    return 1e-3 * gpu.launch * LAUNCHES[kind] * model.layers + moved / (BANDWIDTH * gpu.bandwidth * 1e9)


def _flop_seconds(model: Model, gpu: GPU, tokens: float) -> float:
    """Two operations a weight for each token, forward; attention's own, a few per cent at these lengths, are left out."""
    return 2 * (model.linear + model.head) * tokens / (EFFICIENCY * gpu.tflops * 1e12)


def _generation_seconds(model: Model, cfg: Config, gpu: GPU, number: int, tokens: float) -> float:
    """Seconds of one batch with prompts of so many tokens, until its longest completion is at the limit, and of checking it."""
    attempt = cfg.max_completion_length
    cache = number * (tokens + attempt / 2) * 4 * model.layers * model.kv
    moved = cache / (BANDWIDTH * gpu.bandwidth * 1e9)
    step = _pass_seconds(model, cfg, gpu) + moved + _flop_seconds(model, gpu, number)
    return _flop_seconds(model, gpu, number * tokens) + attempt * step + REWARD_SECONDS * number


def step_seconds(cfg: Config, gpu: GPU) -> float:
    """Return the seconds of an optimizer step: sampling, rewards, reference, training."""
    model, seconds = model_of(cfg), 0.0
    passes = 1 + (1 if cfg.lora_rank else 2) + cfg.gradient_checkpointing + (cfg.beta > 0)
    parts = cfg.prompts_per_step * cfg.num_generations / cfg.micro_batch_size
    for layer, number in enumerate(rows(cfg)):
        padded = prompt(cfg, cfg.train_data, layer)[2]
        trained = _flop_seconds(model, gpu, number * (padded + cfg.max_completion_length))
        seconds += _generation_seconds(model, cfg, gpu, number, padded)
        seconds += passes * (trained + parts * _pass_seconds(model, cfg, gpu))
    return seconds


def hours(cfg: Config, gpu: GPU) -> dict[str, float]:
    """Return the hours on one GPU of ``base`` and of each arm with all its seeds: training, evaluation, controls."""
    sizes = [(QUESTIONS.get(name, OWN_QUESTIONS)[2], cfg.test_problems) for name in cfg.benchmarks]
    sizes = [min(filter(None, size), default=OWN_PROBLEMS) for size in sizes]
    everything, probed = sum(sizes), sum(min(size, cfg.probe_problems) for size in sizes)
    lengths = [prompt(cfg, name, drafts)[0] for name in cfg.benchmarks for drafts in (0, 1)]
    mean, out = sum(lengths) / len(lengths), {}
    for arm in ("base", *cfg.arms):
        run, seeds = cfg.of_arm(arm), 1 if arm == "base" else len(cfg.seeds)
        problems = 2 * (cfg.validation_problems + everything + probed * cfg.samples)  # two attempts
        if arm in cfg.control_arms:
            pairs = (len(cfg.control_arms) - 1) * (len(cfg.seeds) if arm == "base" else 1)
            problems += (2 + pairs) * everything  # no draft, another problem's, and each other arm's
            problems += (len(PHRASES) + 7) * probed  # other phrases; two attempts in a quarter of the batch
        batch = _generation_seconds(model_of(run), run, gpu, run.eval_batch_size, mean)
        training = steps(run) * step_seconds(run, gpu)
        out[arm] = seeds * (training + math.ceil(problems / run.eval_batch_size) * batch) / 3600
    return out


def miniature_hours(cfg: Config) -> float:
    """Return the hours of a miniature's pipeline on two cores: as long for each sampled token as profile cpu's, as measured."""

    def sampled(cfg: Config) -> float:
        runs = [cfg.of_arm(arm) for arm in cfg.arms]
        return sum(steps(run) * tokens_per_step(run)[0] for run in runs) * len(cfg.seeds) * max(1, len(cfg.bases))

    return timing.seconds("cpu") * sampled(cfg) / sampled(load_config("cpu", arm="base")) / 3600


# ---------------------------------------------------------------------------------------------------------- report
def nearest(name: str, gib: float) -> GPU | None:
    """Return the planned GPU of this name with the nearest memory; None if none was planned for."""
    same = [gpu for gpu in GPUS if gpu.name.split()[0] in name.replace("-", " ").split()]
    return min(same, key=lambda gpu: abs(gpu.memory - gib), default=None)


def verdict(cfg: Config, gpus: list[tuple[str, float]]) -> str:
    """Return, in a line, whether an experiment fits, its memory, and its hours in all and of each arm.

    Args:
        gpus: name and GiB of each of this machine's; with none, the plan is for the smallest of `GPUS` that it fits.
    """
    profile = f"profile {cfg.profile}"
    if cfg.is_miniature:
        time = miniature_hours(cfg)
        said = f"about {time:.1f} hours" if time >= 1 else f"about {60 * time:.0f} minutes" if time > 0.1 else "minutes"
        return f"{profile} on CPUs: fits; no GPU is needed, 2 GiB of memory per notebook; {said} on two cores"
    name, gib = _smallest(cfg, gpus)
    where = f"{profile}, {cfg.model}, on {name} ({gib:.1f} GiB{'' if gpus else '; this machine has no GPU'})"
    if advice := fits(cfg, gib):
        return f"{where}: {advice}"
    peak = max(max(memory(cfg.of_arm(arm)).values()) for arm in ("base", *cfg.arms))
    said, gpu = f"{where}: fits. Planned: at most {peak:.1f} GiB", nearest(name, gib)
    if gpu is None:
        return f"{said}; the speed of this GPU is not known"
    each = hours(cfg, gpu)
    arms = ", ".join(f"{arm} {each[arm]:.1f}" for arm in cfg.arms)
    total, seeds = sum(each.values()), f"{len(cfg.seeds)} seed{'s' * (len(cfg.seeds) > 1)}"
    said += f", {total:.1f} hours" if total >= 0.1 else ", minutes"
    return f"{said} for {seeds} ({arms})" if arms else said


def _smallest(cfg: Config, gpus: list[tuple[str, float]]) -> tuple[str, float]:
    """Name and GiB of the machine's smallest GPU, or else of the smallest planned one that an experiment fits."""
    fitting = [gpu for gpu in GPUS if gpus or not fits(cfg, gpu.memory)] or GPUS
    return min(gpus, key=lambda gpu: gpu[1], default=fitting[0][:2])


def report(cfg: Config, gpus: list[tuple[str, float]], details: bool = False) -> str:
    """Return the plan as text: the verdict in a line, what was measured before, the assumptions. `details` add parameters,
    tokens and disk, and each arm's steps, memory and hours.
    """
    large = not cfg.is_miniature
    lines = [verdict(cfg, gpus), timing.whole(cfg.profile), ASSUMPTIONS if large else ""]
    lines += _details(cfg, gpus) if details else ["Details: the same with DETAILS=1 (without make: --details)"]
    return "\n".join(line for line in lines if line)


def _details(cfg: Config, gpus: list[tuple[str, float]]) -> list[str]:
    """A table of the arms, and what it says."""
    runs = [cfg.of_arm(arm) for arm in ("base", *cfg.arms)]
    table = pd.DataFrame({"arm": run.arm, "trained parameters": trainable(run), "steps": steps(run)} for run in runs)
    table["tokens sampled"], table["tokens read"] = zip(*(tokens_per_step(run) for run in runs), strict=True)
    table[["tokens sampled", "tokens read"]] = table[["tokens sampled", "tokens read"]].mul(table["steps"], axis=0)
    lines = [f"{cfg.model}: {model_of(cfg).parameters:,} parameters. Tokens of questions are estimated from the texts."]
    if not cfg.is_miniature:
        for phase in ("training", "sampling", "evaluation"):
            table[f"{phase}, GiB"] = [memory(run).get(phase, float("nan")) for run in runs]
        gpu = nearest(*_smallest(cfg, gpus))
        if gpu:
            table["hours"] = hours(cfg, gpu).values()
        lines.append(f"Disk: {disk(cfg):.1f} GB for checkpoints and trained weights, beside the model itself.")
    formats = dict.fromkeys(table.columns[1:5], "{:,.0f}".format) | dict.fromkeys(table.columns[5:], "{:.1f}".format)
    lines.append(
        "Planned steps and tokens are of one seed and base model; hours, if any, of all, with evaluation and controls:"
    )
    return [*lines, table.to_string(index=False, formatters=formats, na_rep="-")]
