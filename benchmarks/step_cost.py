"""What a joint MGRPO step costs per generated token, beside plain TRL GRPO and beside the naive two calls of it: `make
benchmark`, or `python benchmarks/step_cost.py miniature growth`. ``135m`` has SmolLM2-135M's shape, random weights
and LoRA; ``growth`` is how cost grows with the tokens, G, H, layers and length, on a small model. Numbers go to
`benchmarks/results/`, the figure is drawn from them.

All arms step in turn in one process, from the same weights (the learning rate is 0), with the same random numbers, so
what they sample for the questions is the same, token for token. Only the ratios of a round count, since a machine's
speed drifts. The arms:

- ``grpo``: TRL's `GRPOTrainer`, G completions of each question.
- ``grpo_matched``: the same with as many rows as MGRPO samples in both layers, in as many micro-batches.
- ``naive``: a `GRPOTrainer` step on the questions, then one on (question, draft, phrase), as TRL does them.
- ``mgrpo``: our joint step.

With a KL term (``beta`` above 0, as in the paper's form) every row moves the policy and a reference is read. So no row can be
left out; ``miniature_kl`` measures that.

Time is split into generation, scoring (rewards), forward and backward, and the rest. ``peak`` is the largest number of
bytes that a graph holds for its backward pass, counted tensor by tensor. It does not depend on the machine.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor
from trl import GRPOConfig, GRPOTrainer

from mgrpo_lib.experiment.store import environment
from mgrpo_lib.experiment.versions import TRAINING_VERSION
from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.drafts import choose_drafts
from mgrpo_lib.method.prompts import PHRASES, correction_ids, guidance
from mgrpo_lib.method.trainer import MGRPOTrainer
from mgrpo_lib.tasks import miniature, miniature_model
from mgrpo_lib.verifier.reward import accuracy_reward

ARMS = ("grpo", "grpo_matched", "naive", "mgrpo")
ARM_NAMES = {"grpo": "GRPO", "grpo_matched": "GRPO, matched", "naive": "two naive calls", "mgrpo": "MGRPO, ours"}
CAPTION = (
    "Above, cost of a generated token by phase (medians) and as a ratio to plain TRL GRPO in the same round (line: quartiles). "
    "Below, a step of MGRPO on a small model without KL term: seconds against tokens as the number of questions grows; cost of a "
    "token as other sizes grow; and as the model grows."
)
PHASES = ("generation", "scoring", "forward_backward", "rest")
EOS = 1  # the miniature's tokenizer is used for both
RESULTS = Path(__file__).parent / "results"


class Lengths(LogitsProcessor):
    """Ends each row at a length drawn beforehand and never before: ragged, as real completions are (lognormal)."""

    def __init__(self, rows: int, prompt: int, cap: int, rng: random.Random, eos: int):
        self.ends = [min(cap, max(4, round(rng.lognormvariate(0, 0.6) * cap / 3))) for _ in range(rows)]
        self.prompt, self.eos = prompt, eos

    def __call__(self, input_ids, scores):
        written = input_ids.shape[1] - self.prompt
        last = torch.tensor([written >= end - 1 for end in self.ends], device=scores.device)
        scores[~last, self.eos] = -torch.inf
        scores[last] = -torch.inf
        scores[last, self.eos] = 0.0
        return scores


class GivenPrompts(GRPOTrainer):
    """Plain TRL on exact prompt tokens: the naive arm's second call."""

    given: list[list[int]] = []

    def _tokenize_prompts(self, prompts):
        return self.given, None, {}


def coin(prompts, completion_ids, chance, **kwargs):
    """A reward that depends on the sampled tokens, right with the question's own chance."""
    return [float(random.Random(str(ids)).random() < p) for ids, p in zip(completion_ids, chance, strict=True)]


def small_llama(hidden: int, layers: int, heads: int, key_value_heads: int, vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        intermediate_size=hidden * 8 // 3 // 32 * 32,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


MODELS = {  # hidden size, layers, heads, key and value heads, vocabulary
    "0.1m": (64, 2, 2, 1, 512),
    "small": (128, 4, 4, 2, 512),
    "6m": (256, 8, 4, 2, 512),
    "20m": (384, 12, 6, 2, 512),
    "135m": (576, 30, 9, 3, 49152),
}


class Case:
    """One shape of work: the model, its questions, and the trainers of the arms."""

    def __init__(
        self,
        model: str,
        prompts: int,
        g: int,
        h: int,
        drafts: int,
        cap: int,
        layers: int,
        beta: float,
        device="cpu",
        only="",
    ):
        self.model_name, self.cap, self.g, self.h, self.drafts, self.layers = model, cap, g, h, drafts, layers
        self.device, self.scratch, self.beta = device, tempfile.mkdtemp(), beta
        self.tokenizer = miniature_model.make_tokenizer(PHRASES)
        rng = random.Random(0)
        if model == "miniature":
            problems = miniature.problems("chains", "train", 200)
            rows = [{"prompt": f"<q>{p['question']}<a>", "answer": p["answer"]} for p in problems]
        else:  # a digit is a token
            rows = [
                {
                    "prompt": "".join(rng.choices("0123456789", k=rng.randint(cap // 3, cap))),
                    # as in the reference runs: about four groups in ten are all right or all wrong
                    "chance": min(1.0, max(0.0, rng.normalvariate(0.5, 0.5))),
                }
                for _ in range(200)
            ]
        self.rows, self.prompts = rows, prompts
        self.dataset = Dataset.from_list(rows)
        rows, correct = prompts * g, {"num_layers": layers, "num_corrections": h, "drafts_per_prompt": drafts}
        kinds = {
            "grpo": (GRPOTrainer, GRPOConfig, g, rows, {}),
            "grpo_matched": (GRPOTrainer, GRPOConfig, g + drafts * h, prompts * (g + drafts * h), {}),
            "naive": (GRPOTrainer, GRPOConfig, g, rows, {}),
            "second": (GivenPrompts, GRPOConfig, h, prompts * drafts * h, {}),
            "mgrpo": (MGRPOTrainer, MGRPOConfig, g, rows, correct),
        }
        self.trainers = {name: self._trainer(*kind) for name, kind in kinds.items() if only in ("", name)}

    def _model(self):
        if self.model_name == "miniature":
            return miniature_model.shipped_base(PHRASES)[0].to(self.device)
        return small_llama(*MODELS[self.model_name]).to(self.device, torch.bfloat16 if self.device == "cuda" else None)

    def _trainer(self, kind, arguments, generations: int, rows: int, layers: dict):
        pieces = -(-rows // (self.prompts * self.g))  # micro-batches of as many rows as layer 1 has
        trainer = kind(
            model=self._model(),
            reward_funcs=accuracy_reward if self.model_name == "miniature" else coin,
            args=arguments(
                output_dir=self.scratch,
                per_device_train_batch_size=rows // pieces,
                gradient_accumulation_steps=pieces,
                num_generations=generations,
                max_completion_length=self.cap,
                learning_rate=0.0,
                beta=self.beta,
                loss_type="grpo",
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                use_cpu=self.device == "cpu",
                bf16=self.device == "cuda",
                gradient_checkpointing=False,
                disable_dropout=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                max_steps=1,
                dataloader_pin_memory=False,
                **layers,
            ),
            train_dataset=self.dataset,
            processing_class=self.tokenizer,
            peft_config=None
            if self.model_name == "miniature"
            else LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = pieces  # set by `train`, which is not called here
        return trainer

    def step(self, arm: str, round_: int) -> dict[str, float]:
        """One step of one arm: seconds by phase, tokens that it sampled, bytes of its largest graph."""
        trainers = [self.trainers["naive"], self.trainers["second"]] if arm == "naive" else [self.trainers[arm]]
        clock = dict.fromkeys(PHASES, 0.0) | {"total": 0.0, "tokens": 0.0, "peak": 0.0, "padded": 0.0}
        start = self._now()
        sampled: dict = {}
        for layer, trainer in enumerate(trainers, start=1):
            questions = random.Random(f"questions {round_}").sample(self.rows, self.prompts)
            rows = [row for row in questions for _ in range(trainer.num_generations)]
            if layer == 2:
                rows = self._corrections(trainer, questions, sampled, round_)
            torch.manual_seed(round_)
            with timed(trainer, clock, self, round_, sampled):
                for _ in range(trainer.args.gradient_accumulation_steps):
                    trainer.training_step(trainer.model, rows, None)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
        clock["total"] = self._now() - start
        clock["rest"] = clock["total"] - clock["generation"] - clock["scoring"] - clock["forward_backward"]
        return clock

    def _corrections(self, trainer, questions, sampled, round_) -> list[dict]:
        """Prompts of the naive arm's second call: as our trainer builds them."""
        of = [i for i in range(len(questions)) for _ in range(self.g)]
        right = [reward > 0.5 for reward in sampled["rewards"]]
        rng = random.Random(round_)
        chosen = choose_drafts(of, right, self.drafts, "all", rng)
        given, rows = [], []
        for i in chosen:
            between = self.tokenizer(guidance(rng.choice(PHRASES)), add_special_tokens=False)["input_ids"]
            ids = correction_ids(sampled["prompt_ids"][i], sampled["completion_ids"][i], between, {EOS})
            given += [ids] * self.h
            rows += [questions[of[i]]] * self.h
        trainer.given = given
        return rows

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def timed(trainer, clock, case: Case, round_: int, sampled: dict):
    """The trainer with its parts timed, and with ragged lengths where the model would never stop by itself."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if case.model_name != "miniature":
        model = model.get_base_model()  # below the adapter: our trainer puts its own `generate` on top for a while
    plain = {
        name: getattr(trainer, name)
        for name in ("_generate_single_turn", "_calculate_rewards", "_prepare_inputs", "training_step")
    }
    plain_generate, calls = model.generate, [0]

    def generation(prompt_ids, *rest, **kwargs):
        start = case._now()
        out = plain["_generate_single_turn"](prompt_ids, *rest, **kwargs)
        clock["generation"] += case._now() - start
        clock["tokens"] += sum(map(len, out[0]))
        sampled.update(prompt_ids=prompt_ids, completion_ids=out[0])
        return out

    def scoring(*args, **kwargs):
        start = case._now()
        out = plain["_calculate_rewards"](*args, **kwargs)
        clock["scoring"] += case._now() - start
        sampled["rewards"] = out[:, 0].tolist()
        return out

    def prepared(*args, **kwargs):
        start = case._now()
        out = plain["_prepare_inputs"](*args, **kwargs)
        clock["prepared"] = clock.get("prepared", 0.0) + case._now() - start
        return out

    def step(*args, **kwargs):
        start, before = case._now(), clock.get("prepared", 0.0)
        with graph_bytes(clock):
            out = plain["training_step"](*args, **kwargs)
        clock["forward_backward"] += case._now() - start - (clock["prepared"] - before)
        return out

    def generate(*args, **kwargs):
        calls[0] += 1
        rows, prompt = kwargs["input_ids"].shape
        lengths = Lengths(rows, prompt, case.cap, random.Random(f"{round_} {calls[0]}"), EOS)
        return plain_generate(*args, logits_processor=[lengths], **kwargs)

    trainer._generate_single_turn, trainer._calculate_rewards = generation, scoring
    trainer._prepare_inputs, trainer.training_step = prepared, step
    if case.model_name != "miniature":
        model.generate = generate
    try:
        yield
    finally:
        for name in plain:
            delattr(trainer, name)
        if case.model_name != "miniature":
            del model.generate


class _Saved:
    """A tensor that a graph holds, counted from when it is saved until it is let go."""

    def __init__(self, tensor, held, sizes):
        self.tensor, self.held = tensor, held
        self.storage = tensor.untyped_storage().data_ptr()
        users, size = sizes.get(self.storage, (0, tensor.untyped_storage().nbytes()))
        if users == 0:
            held[0] += size
        sizes[self.storage], self.sizes = (users + 1, size), sizes
        held[1] = max(held)

    def __del__(self):
        users, size = self.sizes[self.storage]
        self.sizes[self.storage] = users - 1, size
        if users == 1:
            self.held[0] -= size
            del self.sizes[self.storage]


@contextmanager
def graph_bytes(clock):
    """The most bytes held for the backward pass at once; shared storage is counted once."""
    held, sizes = [0, 0], {}
    if not MEASURE_MEMORY:
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(lambda t: _Saved(t, held, sizes), lambda s: s.tensor):
        yield
    clock["peak"] = max(clock["peak"], held[1])


MEASURE_MEMORY = False


def compare(case: Case, rounds: int, arms=ARMS) -> dict:
    """Rounds of one step of each arm, in changing order; the first, uncounted round warms up and measures memory."""
    global MEASURE_MEMORY
    MEASURE_MEMORY = True
    peaks = {arm: case.step(arm, 0)["peak"] for arm in arms}
    MEASURE_MEMORY = False
    steps = {arm: [] for arm in arms}
    for round_ in range(1, rounds + 1):
        for arm in random.Random(round_).sample(arms, len(arms)):
            steps[arm].append(case.step(arm, round_))
        print(
            f"round {round_}: "
            + "  ".join(f"{arm} {1e3 * s[-1]['total'] / s[-1]['tokens']:.2f}" for arm, s in steps.items())
            + "  ms a token",
            flush=True,
        )
    out = {}
    for arm in arms:
        cost = [step["total"] / step["tokens"] for step in steps[arm]]
        out[arm] = {
            "ms_per_token": quartiles([1e3 * c for c in cost]),
            "tokens_per_step": statistics.mean(step["tokens"] for step in steps[arm]),
            "phases_ms_per_token": {
                phase: 1e3 * statistics.median(step[phase] / step["tokens"] for step in steps[arm]) for phase in PHASES
            },
            "peak_graph_bytes": peaks[arm],
        }
        for other in ("grpo", "grpo_matched"):
            if other in arms:
                pairs = [
                    a["total"] / a["tokens"] / (b["total"] / b["tokens"])
                    for a, b in zip(steps[arm], steps[other], strict=True)
                ]
                out[arm][f"ratio_to_{other}"] = quartiles(pairs)
    return out


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": middle, "lower": low, "upper": high}


GROWTH = {  # one thing changes, the rest is as in the first
    "prompts": [{"prompts": n} for n in (2, 4, 8, 16, 32)],
    "g": [{"g": n} for n in (4, 8, 16)],
    "h": [{"h": n} for n in (2, 4, 8)],
    "layers": [{"layers": n} for n in (1, 2, 3)],
    "cap": [{"cap": n} for n in (32, 64)],
    "model": [{"model": name} for name in ("0.1m", "small", "6m", "20m")],
}
CASES = {
    "miniature": {"model": "miniature"},
    "miniature_kl": {"model": "miniature", "beta": 0.001},
    "135m": {"model": "135m", "prompts": 1},
}
SHAPE = {"model": "small", "prompts": 8, "g": 8, "h": 4, "drafts": 2, "cap": 64, "layers": 2, "beta": 0.0}


def growth(rounds: int) -> list[dict]:
    """Seconds and tokens of our step as one thing grows; medians of `rounds` steps."""
    rows = []
    for name, changes in GROWTH.items():
        for change in changes:
            case = Case(**{**SHAPE, **change}, only="mgrpo")
            steps = [case.step("mgrpo", round_) for round_ in range(rounds + 1)][1:]
            row = {"what": name, "value": str(change[name]), "tokens": statistics.mean(s["tokens"] for s in steps)}
            if name == "model":
                row |= {
                    "what": "parameters",
                    "value": f"{case.trainers['mgrpo'].model.base_model.model.num_parameters():,}",
                }
            rows.append({**row, "seconds": statistics.median(s["total"] for s in steps)})
            print(rows[-1], flush=True)
    return rows


def line_of(rows: list[dict]) -> dict[str, float]:
    """Least squares: seconds = fixed + per_token * tokens, and the share of the variance that it explains."""
    tokens, seconds = ([row[name] for row in rows] for name in ("tokens", "seconds"))
    per_token, fixed = statistics.linear_regression(tokens, seconds)
    return {
        "fixed_seconds": fixed,
        "ms_per_token": 1e3 * per_token,
        "r_squared": statistics.correlation(tokens, seconds) ** 2,
        "range": max(tokens) / min(tokens),
    }


def measured() -> list[str]:
    return [name for name in CASES if (RESULTS / f"{name}.json").exists()]


def table() -> str:
    """The result files as Markdown."""
    files = [json.loads((RESULTS / f"{name}.json").read_text()) for name in (*measured(), "growth")]
    codes, devices = ({file[name]: None for file in files} for name in ("training_version", "device"))
    lines = [
        "Generated by `make benchmark`; medians of rounds, quartiles in brackets. Ratios are per generated token, round by round.",
        "",
        f"Training version: {', '.join(map(str, codes))}. Device: {', '.join(devices)}.",
        "",
    ]
    lines += [
        "| model | arm | of grpo | of grpo_matched | ms a token | of it the verifier, % | graph, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in measured():
        for arm, row in json.loads((RESULTS / f"{model}.json").read_text())["arms"].items():
            ratios = [row[f"ratio_to_{other}"] for other in ("grpo", "grpo_matched")]
            cells = [f"{r['median']:.2f} [{r['lower']:.2f}, {r['upper']:.2f}]" for r in ratios]
            cost, verifier = row["ms_per_token"]["median"], row["phases_ms_per_token"]["scoring"]
            cells += [f"{cost:.3g}", f"{100 * verifier / cost:.1f}", f"{row['peak_graph_bytes'] / 2**20:.0f}"]
            lines.append(f"| {model} | {arm} | {' | '.join(cells)} |")
    growth = json.loads((RESULTS / "growth.json").read_text())
    line = growth["line"]
    lines += [
        "",
        f"Our step against the tokens that it samples, over a {line['range']:.0f}-fold range: {line['fixed_seconds']:.3f} s + "
        f"{line['ms_per_token']:.3f} ms a token, R² = {line['r_squared']:.4f}.",
        "",
    ]
    lines += ["| what grows | to | tokens | seconds |", "| --- | --- | --- | --- |"]
    lines += [f"| {r['what']} | {r['value']} | {r['tokens']:.0f} | {r['seconds']:.2f} |" for r in growth["rows"]]
    return "\n".join(lines) + "\n"


def draw() -> None:
    """Phases of each arm's cost, and how a step grows, from the result files; the table beside it."""
    (RESULTS / "step_cost.md").write_text(table(), encoding="utf-8")
    import matplotlib.pyplot as plt

    from mgrpo_lib.report.style import save, use_style

    use_style()
    cases, growth = measured(), json.loads((RESULTS / "growth.json").read_text())
    figure, (above, below) = plt.subplots(2, 3, figsize=(7, 4.6), layout="constrained")
    for axis in above[len(cases) :]:
        axis.remove()
    for axis, name in zip(above, cases, strict=False):
        arms = json.loads((RESULTS / f"{name}.json").read_text())["arms"]
        base, left = arms["grpo"]["ms_per_token"]["median"], [0.0] * len(arms)
        for phase, color in zip(PHASES, ("#56B4E9", "#000000", "#E69F00", "#BBBBBB"), strict=True):
            widths = [arm["phases_ms_per_token"][phase] / base for arm in arms.values()]
            axis.barh(
                [ARM_NAMES[arm] for arm in arms], widths, left=left, color=color, label=phase.replace("_", " and ")
            )
            left = [a + b for a, b in zip(left, widths, strict=True)]
        ratios = [arm["ratio_to_grpo"] for arm in arms.values()]
        spread = [[r["median"] - r["lower"] for r in ratios], [r["upper"] - r["median"] for r in ratios]]
        middles = [r["median"] for r in ratios]
        axis.errorbar(middles, range(len(arms)), xerr=spread, fmt="|", color="black", lw=1, capsize=2)
        axis.axvline(1, color="black", lw=0.8, ls=":")
        axis.invert_yaxis()
        axis.set_title(name.replace("_kl", " with KL").replace("135m", "135M, LoRA"), fontsize=9)
    above[len(cases) // 2].set_xlabel("cost of a generated token (GRPO = 1)", fontsize=8)
    for axis in above[1 : len(cases)]:
        axis.set_yticklabels([])
    figure.legend(*above[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=8, frameon=False)

    def rows(what: str) -> list[dict]:
        return [row for row in growth["rows"] if row["what"] == what]

    fit, tokens = growth["line"], [row["tokens"] for row in rows("prompts")]
    line = [fit["fixed_seconds"] + fit["ms_per_token"] / 1e3 * t for t in tokens]
    below[0].plot(tokens, [row["seconds"] for row in rows("prompts")], "o", color="#D55E00")
    below[0].plot(tokens, line, color="#D55E00", lw=1)
    below[0].set_title(f"a step of MGRPO: $R^2$ = {fit['r_squared']:.3f}", fontsize=9)
    below[0].set_xlabel("generated tokens in a step", fontsize=8)
    below[0].set_ylabel("seconds", fontsize=8)
    names = {"g": "G", "h": "H", "layers": "layers", "cap": "longest completion"}
    for (what, label), marker, color in zip(
        names.items(), "os^D", ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True
    ):
        cost = [1e3 * row["seconds"] / row["tokens"] for row in rows(what)]
        below[1].plot(
            [float(row["value"]) / SHAPE[what] for row in rows(what)],
            cost,
            marker=marker,
            color=color,
            lw=1,
            label=label,
        )
    below[1].set_ylim(bottom=0)
    below[1].set_xlabel("times its value in the benchmark", fontsize=8)
    below[1].set_ylabel("ms a generated token", fontsize=8)
    below[1].legend(fontsize=7, frameon=False)
    sizes = [float(row["value"].replace(",", "")) for row in rows("parameters")]
    cost = [1e3 * row["seconds"] / row["tokens"] for row in rows("parameters")]
    below[2].loglog(sizes, cost, "o-", color="#D55E00", lw=1)
    below[2].set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    below[2].minorticks_off()
    below[2].set_xlabel("parameters", fontsize=8)
    below[2].set_ylabel("ms a generated token", fontsize=8)
    for axis, title in zip(below[1:], ("what else grows", "size of the model"), strict=True):
        axis.set_title(title, fontsize=9)
    save(figure, RESULTS, "step_cost", "What a step costs", CAPTION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[*CASES, "growth"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for what in given.what:
        where = {"environment": environment(), "training_version": TRAINING_VERSION, "device": given.device}
        if what == "growth":
            rows = growth(3)
            found = {"rows": rows, "line": line_of([row for row in rows if row["what"] == "prompts"])}
        else:
            shape = SHAPE | CASES[what]
            found = {"shape": shape, "rounds": given.rounds}
            found["arms"] = compare(Case(**shape, device=given.device), given.rounds)
            for arm, row in found["arms"].items():
                print(
                    f"{arm:13} {row['ms_per_token']['median']:8.3f} ms a token  x{row['ratio_to_grpo']['median']:.2f} of grpo  "
                    f"x{row['ratio_to_grpo_matched']['median']:.2f} of grpo_matched  graph {row['peak_graph_bytes'] / 2**20:.0f} MiB"
                )
        (RESULTS / f"{what}.json").write_text(json.dumps({**found, **where}, indent=1) + "\n")
    if measured() and (RESULTS / "growth.json").exists():
        draw()


if __name__ == "__main__":
    main()
