"""The embedded miniature: an arithmetic task, a tokenizer and a base model small enough to train on one CPU core.

It stands in for a pretrained LLM and a mathematics benchmark, so that the whole chain can be run, and something real
can be learnt, in minutes and without a download. It is a miniature: its numbers say nothing about a 7B model.

Two families of problems, both in clock arithmetic with ten hours (every result keeps its last digit only):

- **Chains**, a start and labelled steps: ``7 a+8 b*3 c-5``. The solution works one step after the other,
  ``a7+8=5b5*3=5c5-5=0``. The base model holds a *misconception*: it mostly reads ``a*b`` as ``a+b``. Greedy decoding is
  then wrong, sampling is sometimes right, and reinforcement learning has something to amplify. A second look at a chain
  is no easier than the first: correction can protect a right answer, hardly gain one.
- **Blanks**, chains with a missing digit and a target: ``7 a+? b-3 c+8 =4``. The solution is a guess and its check. To
  *find* the digit in one glance is too hard for so small a model; to *check* a guess is a chain, and to *mend* one
  takes a single step more. The base model can mend but mostly repeats its guess, as LLMs do. Here a second attempt can
  gain, if the model is taught to make use of it.

The paper has no such task; both are ours. Everything is deterministic given the seed. Inside this module a chain is a
plain string such as ``7+8*3-5``; `labelled` and `in_words` write it out as a question.
"""

import random
import re
import zlib
from pathlib import Path

LABELS = "abcde"
OPERATORS = "+-*"
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = {str(i): word for i, word in enumerate(NUMBERS)} | {"+": "plus", "-": "minus", "*": "times"}
# share of '*' steps that the base model's text reads as '+': above 1/2, so that greedy decoding is wrong
P_MISCONCEPTION = 0.55
# share of the base model's text that names the missing digit right at once; the rest guesses, and checks honestly
P_GUESS = 0.3
# share of wrong guesses that the base model's second attempts mend; below 1/2, so that greedy decoding repeats them
P_MEND = 0.4
P_SECOND_ATTEMPT = 0.4  # share of the base model's text that shows a draft and a second attempt

# name: (family, number of operands, operators, written in words)
SETS = {
    "train": None,  # two thirds chains, one third blanks, as the next two; also the source of the validation set
    "chains": ("chain", (3, 5), OPERATORS, False),  # in distribution
    "blanks": ("blank", (3, 4), "+-", False),  # in distribution; checking is easier than solving
    "chains_long": ("chain", (6, 6), OPERATORS, False),  # longer than any problem of reinforcement learning
    "chains_times": ("chain", (3, 5), "**-", False),  # two thirds of the operators are the misunderstood one
    "chains_words": ("chain", (3, 5), OPERATORS, True),  # another surface form, never seen in reinforcement learning
}
SPLITS = ("train", "validation", "test")
SHIPPED = Path(__file__).with_name("miniature_base")  # made by tools/base_model.py
TRAINING = "train"
BENCHMARKS = [name for name in SETS if name != TRAINING]


# ---------------------------------------------------------------------------------------------- problems and solutions
def apply(a: int, operator: str, b: int, misconception: bool = False) -> int:
    """One step in clock arithmetic; with the misconception ``*`` is read as ``+``."""
    if operator == "*" and not misconception:
        return a * b % 10
    return (a - b if operator == "-" else a + b) % 10


def worked(chain: str, rng: random.Random | None = None) -> tuple[str, int]:
    """A chain worked out step by step, and its value; with ``rng``, each ``*`` may follow the misconception.

    >>> worked("7+8*3")
    ('a7+8=5b5*3=5', 5)
    """
    value, text = int(chain[0]), ""
    for label, operator, operand in zip(LABELS, chain[1::2], map(int, chain[2::2]), strict=False):
        slip = rng is not None and rng.random() < P_MISCONCEPTION
        before, value = value, apply(value, operator, operand, slip)
        text += f"{label}{before}{operator}{operand}={value}"
    return text, value


def labelled(chain: str) -> str:
    """``7+8*3`` as ``7 a+8 b*3``."""
    return " ".join(
        [chain[0], *(label + chain[i : i + 2] for label, i in zip(LABELS, range(1, len(chain), 2), strict=False))]
    )


def in_words(question: str) -> str:
    """``7 a+8`` as ``seven a plus eight``."""
    return " ".join(WORDS.get(character, character) for character in question if character != " ")


def bare(question: str) -> str:
    """A question without labels, blanks and words: ``seven a plus eight`` and ``7 a+8`` are both ``7+8``. Two questions
    are the same if this is.
    """
    digits = {word: character for character, word in WORDS.items()}
    return "".join(digits.get(token, token) for token in re.findall(r"[a-z]{2,}|[0-9+*=?-]", question))


def chain_solution(chain: str, rng: random.Random | None = None) -> str:
    """A completion for a chain."""
    work, value = worked(chain, rng)
    return f"<think>{work}</think>\\boxed{{{value}}}"


def blank_solution(chain: str, target: int, guess: int, draft: int | None = None) -> str:
    """A completion for a blank: a guess, its check, and what is missing to the target (0 if the guess is right).

    With `draft`, an earlier guess, the new one is written as its mending, ``?=6+4=0``: the draft, plus or minus what
    was missing.

    Args:
        chain: with ``?`` for the missing digit.
        target: the value that the chain should have.
    """
    work, value = worked(chain.replace("?", str(guess)))
    mending = ""
    if draft is not None:
        missing = apply(target, "-", worked(chain.replace("?", str(draft)))[1])
        mending = f"{draft}{'-' if '-?' in chain else '+'}{missing}="
    return f"<think>?={mending}{guess}{work};{target}-{value}={apply(target, '-', value)}</think>\\boxed{{{guess}}}"


def random_chain(rng: random.Random, operands: tuple[int, int], operators: str) -> str:
    count = rng.randint(*operands)
    return str(rng.randrange(10)) + "".join(rng.choice(operators) + str(rng.randrange(10)) for _ in range(count - 1))


def random_blank(rng: random.Random, operands: tuple[int, int], operators: str = "+-") -> tuple[str, int, int]:
    """A chain with ``?`` for one digit, the value of the whole chain, and the missing digit (the only one that fits)."""
    chain = random_chain(rng, operands, operators)
    position = rng.randrange(0, len(chain), 2)
    return f"{chain[:position]}?{chain[position + 1 :]}", worked(chain)[1], int(chain[position])


def random_problem(
    rng: random.Random, family: str, operands: tuple[int, int], operators: str, words: bool
) -> dict[str, str]:
    """One problem as ``question, answer``."""
    if family == "blank":
        chain, target, answer = random_blank(rng, operands, operators)
        question = f"{labelled(chain)} ={target}"
    else:
        chain = random_chain(rng, operands, operators)
        question, answer = labelled(chain), worked(chain)[1]
    return {"question": in_words(question) if words else question, "answer": str(answer)}


def split_of(question: str) -> str:
    """The split a question belongs to, by a hash of its bare form: 70% train, 10% validation, 20% test."""
    bucket = zlib.crc32(bare(question).encode()) % 10
    return "train" if bucket < 7 else "validation" if bucket == 7 else "test"


def problems(name: str, split: str, n: int, seed: int = 0) -> list[dict]:
    """`n` different problems of a set, as ``question, answer, id, source``.

    No problem can stand in two splits: a hash of its bare form decides to which one it belongs, whatever the set, so
    that a chain in words is never a training chain either.

    Args:
        name: a key of `SETS`. ``train`` mixes chains and blanks, two to one.
        split: ``train``, ``validation`` or ``test``.
        n: number of problems.
        seed: of the generator.

    Raises:
        ValueError: unknown set or split, or fewer than `n` different problems.
    """
    if name not in SETS:
        raise ValueError(f"unknown miniature set {name!r}: one of {', '.join(SETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    rng = random.Random(f"{name}/{split}/{seed}")
    kinds = [SETS["chains"], SETS["chains"], SETS["blanks"]] if name == "train" else [SETS[name]]
    found: dict[str, dict] = {}
    for _ in range(1000 * n):
        if len(found) == n:
            break
        one = random_problem(rng, *kinds[len(found) % len(kinds)])
        if split_of(one["question"]) == split:
            found.setdefault(one["question"], one)
    if len(found) < n:
        raise ValueError(
            f"the miniature set {name!r} has only {len(found)} different problems in its {split} split, not {n}; ask for fewer"
        )
    return [{**one, "id": f"{name}-{split}-{i}", "source": f"miniature/{name}"} for i, one in enumerate(found.values())]


# ---------------------------------------------------------------------------------------------- the base model's text
def base_text(rng: random.Random, phrases: list[str], longest: int = 6) -> tuple[str, str]:
    """One example of the text the base model is trained on, as (prompt, completion): a first or a second attempt.

    Chains of 2 to `longest` operands (one in five in words) and, two in five, blanks of at most 4, all from the
    training split. A second attempt at a chain is a fresh try with the same misconception; one at a blank keeps a right
    guess, and mends a wrong one with probability `P_MEND`. Below four operands there are only first attempts, and below
    three only chains.
    """
    second = longest >= 4 and rng.random() < P_SECOND_ATTEMPT
    blank = longest >= 3 and rng.random() < 0.4
    while True:
        if blank:
            chain, target, answer = random_blank(rng, (3, min(4, longest)))
            question = f"{labelled(chain)} ={target}"
        else:
            chain = random_chain(rng, (2, longest), OPERATORS)
            question = labelled(chain)
        if split_of(question) == "train":
            break
    if blank:
        guess = answer if rng.random() < P_GUESS else rng.randrange(10)
        draft = solution = blank_solution(chain, target, guess)
        if second and guess != answer and rng.random() < P_MEND:
            solution = blank_solution(chain, target, answer, draft=guess)
    else:
        draft, solution = chain_solution(chain, rng), chain_solution(chain, rng)
        question = in_words(question) if rng.random() < 0.2 else question
    prompt = f"<q>{question}<a>"
    return (prompt + draft + rng.choice(phrases) if second else prompt), solution


# ---------------------------------------------------------------------------------------------- tokenizer and base
# model
def make_tokenizer(phrases: list[str]):
    """A word-level tokenizer: digits, operators, step labels, number words, tags, and each guiding phrase as one token.
    White space is ignored.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tags = ["<q>", "<a>", "<think>", "</think>", "\\boxed{", "}"]
    vocabulary = ["<pad>", "<eos>", *tags, *"0123456789+-*=;?", *LABELS, *WORDS.values()]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<pad>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\n"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(
                Regex("|".join([re.escape(tag) for tag in tags] + ["[0-9+*=;?-]", "[a-z]{2,}", "[a-z]"])), "isolated"
            ),
        ]
    )
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, lstrip=True, rstrip=True) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_base_model(tokenizer, seed: int = 0):
    """An untrained Llama of about 0.2M parameters; all widths are multiples of 64, as 4-bit blocks need."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.1,  # the usual 0.02 is for wide models; here it costs minutes of plateau
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},  # sequences of at most 150 tokens
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def train_base(steps: int, batch_size: int, learning_rate: float, phrases: list[str], seed: int = 0, on_step=None):
    """Trains the base model on `base_text`, short chains first, until it knows the rules, the misconception, and how to
    try again.

    Args:
        steps: optimizer steps.
        batch_size: texts a step.
        learning_rate: peak for embeddings and norms (AdamW), four times that for matrices (Muon); linear decay to 5%.
        phrases: guiding phrases, each a token.
        on_step: called with (step, steps, loss) after every step.

    Returns:
        (model, tokenizer), the model in evaluation mode.
    """
    import torch

    tokenizer = make_tokenizer(phrases)
    model = make_base_model(tokenizer, seed)
    rng = random.Random(f"base/{seed}")
    # Muon for the matrices inside the layers halves the number of steps against AdamW alone
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(inside, lr=4 * learning_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    warm_up_and_decay = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: min((step + 1) / 30, 1) * (1 - 0.95 * step / steps))
        for o in optimizers
    ]
    for step, texts in enumerate(base_batches(rng, phrases, steps, batch_size)):
        input_ids, labels = _padded(tokenizer, texts)
        # padding stands on the right of causal attention: no mask needed
        loss = model(input_ids=input_ids, labels=labels).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for step_taker in (*optimizers, *warm_up_and_decay):
            step_taker.step()
        if on_step is not None:
            on_step(step + 1, steps, loss.item())
    return model.eval(), tokenizer


def shipped_base(phrases: list[str]):
    """The base model that comes with the library, so that every machine starts from the same weights: how well so short a
    training ends depends on the last bits of a processor's arithmetic. ``made.json`` beside it tells how it was made.

    Returns:
        (model, tokenizer), the model in evaluation mode.
    """
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32).eval(), make_tokenizer(phrases)


def base_batches(rng: random.Random, phrases: list[str], steps: int, batch_size: int, pool: int = 10):
    """Yields `steps` batches of base text. Chains grow from 2 to 6 operands over the first 45% of the steps; texts of
    like length share a batch.
    """
    for start in range(0, steps, pool):
        longest = min(6, 2 + int(max(0.0, start / steps - 0.15) / 0.075))
        texts = sorted(
            (base_text(rng, phrases, longest) for _ in range(pool * batch_size)),
            key=lambda text: len(text[0]) + len(text[1]),
        )
        batches = [
            texts[i::pool] if longest == 2 else texts[i * batch_size : (i + 1) * batch_size]
            for i in range(min(pool, steps - start))
        ]
        rng.shuffle(batches)
        yield from batches


def _padded(tokenizer, texts: list[tuple[str, str]]):
    """Input ids and labels (rows, length); only completions and their end are learnt."""
    import torch

    prompts = tokenizer([prompt for prompt, _ in texts], add_special_tokens=False)["input_ids"]
    completions = tokenizer([completion for _, completion in texts], add_special_tokens=False)["input_ids"]
    rows = [
        prompt + completion + [tokenizer.eos_token_id] for prompt, completion in zip(prompts, completions, strict=True)
    ]
    input_ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    labels = torch.full_like(input_ids, -100)
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        input_ids[i, : len(row)] = torch.tensor(row)
        labels[i, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
    return input_ids, labels


def prompt(question: str) -> str:
    """The miniature's layer-1 prompt."""
    return f"<q>{question}<a>"
