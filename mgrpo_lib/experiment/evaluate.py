"""Two attempts at every problem, greedy and by the same rules for every model, and a record of each.

Nothing here but `Examinee.mark` sees a gold answer: drafts, phrases and stopping do not depend on it.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from mgrpo_lib.experiment.data import test_problems, validation_problems
from mgrpo_lib.experiment.fingerprints import evaluation_key, finished_run, validation_key
from mgrpo_lib.experiment.models import limit_threads, load_policy
from mgrpo_lib.experiment.progress import clock, say
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.store import environment, finished, write_json, write_records
from mgrpo_lib.method.prompts import PHRASES, check_context, correction_ids, guidance_ids, phrase_text
from mgrpo_lib.verifier.reward import extract_answer, same_answer

SECONDS_BETWEEN_LINES = 20.0


@torch.no_grad()
def generate(
    model, tokenizer, prompt_ids: list[list[int]], max_new_tokens: int, batch_size: int, temperature: float = 0.0
) -> list[list[int]]:
    """Completions as token ids, each up to and with its end-of-sequence token (without one: truncated); greedy at
    temperature 0, where the same prompt is answered once.

    Prompts are batched by length and padded on the left; the batch size is part of the result, since padding can change
    the last bits of a logit. Says how far it is now and then.
    """
    if not temperature and len(different := list(dict.fromkeys(map(tuple, prompt_ids)))) < len(prompt_ids):
        answered = generate(model, tokenizer, [list(ids) for ids in different], max_new_tokens, batch_size)
        of = dict(zip(different, answered, strict=True))
        return [of[tuple(ids)] for ids in prompt_ids]
    completions: list[list[int]] = [[] for _ in prompt_ids]
    ends = end_tokens(model, tokenizer)
    how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    begun = said = time.monotonic()
    for start in range(0, len(order), batch_size):
        if start and (now := time.monotonic()) - said > SECONDS_BETWEEN_LINES:
            rate, said = start / (now - begun), now
            say(f"{start} of {len(order)} completions, {rate:.1f} a second, {clock((len(order) - start) / rate)} to go")
        rows = order[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [prompt_ids[i] for i in rows]}, return_tensors="pt", padding_side="left"
        ).to(model.device)
        out = model.generate(
            **batch, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, **(how or {"do_sample": False})
        )
        for i, ids in zip(rows, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((k + 1 for k, token in enumerate(ids) if token in ends), len(ids))
            completions[i] = ids[:end]
    return completions


def end_tokens(model, tokenizer) -> set[int]:
    """Every token that ends a completion: chat models have more than their tokenizer's one."""
    ids = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *([] if ids is None else [ids] if isinstance(ids, int) else ids)}


@dataclass
class Examinee:
    """A model that answers by the rules of a profile: its prompts, its lengths, its batch size."""

    cfg: Config
    model: Any
    tokenizer: Any

    def __post_init__(self):
        # how a checkpoint asks to be decoded (repetition penalty and the like) is put aside: one rule for every model
        ends = sorted(end_tokens(self.model, self.tokenizer))
        self.model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=self.tokenizer.pad_token_id)

    @classmethod
    def load(cls, cfg: Config) -> "Examinee":
        """The model of this arm and seed.

        Raises:
            FileNotFoundError: it was not trained with just these parameters.
        """
        if finished_run(cfg) is None:
            raise FileNotFoundError(
                f"{cfg.run_name} is not trained with these parameters in {cfg.run_folder}; run its training notebook "
                f"first (or `make reproduce PROFILE={cfg.profile}`)"
            )
        limit_threads(cfg)
        return cls(cfg, *load_policy(cfg))

    def questions(self, problems: list[dict]) -> list[list[int]]:
        """Prompts of the first attempt.

        Raises:
            ValueError: two attempts do not fit into the model's context.
        """
        questions = [self.cfg.prompt(problem["question"]) for problem in problems]
        if self.cfg.template == "chat":
            prompts = [
                self.tokenizer.apply_chat_template(q, add_generation_prompt=True, tokenize=True, return_dict=False)
                for q in questions
            ]
        else:
            prompts = self.tokenizer(questions, add_special_tokens=False)["input_ids"]
        # some models have no limit
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None:
            phrase = max(len(self.phrase(phrase)) for phrase in [*PHRASES, self.cfg.eval_phrase])
            check_context(context, max(map(len, prompts)), phrase, 2, self.cfg.max_completion_length)
        return prompts

    def phrase(self, phrase: int | str) -> list[int]:
        """The tokens between a draft and its correction, of a phrase as `eval_phrase` gives it."""
        prompt = self.cfg.prompt("")
        return guidance_ids(self.tokenizer, prompt, phrase_text(phrase), self.cfg.phrase_role)

    def corrections(
        self, prompts: list[list[int]], drafts: list[list[int]], phrase: int | str | None = None
    ) -> list[list[int]]:
        """Prompts of the second attempt: question, draft, guiding phrase (by default the profile's)."""
        between, ends = (
            self.phrase(self.cfg.eval_phrase if phrase is None else phrase),
            end_tokens(self.model, self.tokenizer),
        )
        return [correction_ids(prompt, draft, between, ends) for prompt, draft in zip(prompts, drafts, strict=True)]

    def attempt(
        self, prompts: list[list[int]], temperature: float = 0.0, batch_size: int | None = None
    ) -> list[list[int]]:
        length, batch = self.cfg.max_completion_length, batch_size or self.cfg.eval_batch_size
        return generate(self.model, self.tokenizer, prompts, length, batch, temperature)

    def mark(self, problems: list[dict], completions: list[list[int]]) -> list[dict]:
        """``text, answer, correct, tokens, truncated`` of each completion."""
        ends, texts = (
            end_tokens(self.model, self.tokenizer),
            self.tokenizer.batch_decode(completions, skip_special_tokens=True),
        )
        marks = []
        for problem, ids, text in zip(problems, completions, texts, strict=True):
            answer = extract_answer(text)
            right = same_answer(answer, problem["answer"])
            marks.append(
                {"text": text, "answer": answer, "correct": right, "tokens": len(ids), "truncated": ids[-1] not in ends}
            )
        return marks


def two_attempts(examinee: Examinee, problems: list[dict]) -> list[dict]:
    """First attempts, then second ones that see question, first attempt and guiding phrase.

    Returns:
        A record for each problem: ``id, question, gold``, the draft's tokens ``ids_1`` and, for attempt k in 1 and 2,
        ``text_k, answer_k, correct_k, tokens_k, truncated_k``.
    """
    prompts = examinee.questions(problems)
    first = examinee.attempt(prompts)
    second = examinee.attempt(examinee.corrections(prompts, first))
    records = [
        {"id": problem["id"], "question": problem["question"], "gold": problem["answer"]} for problem in problems
    ]
    for k, completions in ((1, first), (2, second)):
        for record, mark in zip(records, examinee.mark(problems, completions), strict=True):
            record |= {f"{name}_{k}": value for name, value in mark.items()}
    return [{**record, "ids_1": ids} for record, ids in zip(records, first, strict=True)]


def accuracy(records: list[dict]) -> dict[str, float]:
    """Share of right answers at each attempt."""
    return {f"acc_t{k}": sum(record[f"correct_{k}"] for record in records) / len(records) for k in (1, 2)}


def validate(cfg: Config) -> dict[str, float]:
    """Accuracy of one arm and seed at both attempts on the validation set, on which settings are chosen; kept beside
    the run in ``validation.json``.
    """
    file, key = cfg.run_folder / "validation.json", validation_key(cfg)
    if done := finished(file, key):
        return done["accuracy"]
    scores = accuracy(two_attempts(Examinee.load(cfg), validation_problems(cfg)))
    write_json(file, {"key": key, "n": cfg.validation_problems, "accuracy": scores, "environment": environment()})
    return scores


def all_problems(cfg: Config) -> list[dict]:
    """The problems of every test set, each with its ``benchmark``."""
    return [{**problem, "benchmark": name} for name in cfg.benchmarks for problem in test_problems(cfg, name)]


def evaluate(cfg: Config) -> dict:
    """Both attempts of one arm and seed on every test set; records go to ``records/<run>.jsonl.gz`` in the results
    folder.

    Returns:
        The manifest: key, digest of the records, seconds, generated tokens, and the accuracy on each benchmark.
    """
    manifest, key = cfg.results / "records" / f"{cfg.run_name}.json", evaluation_key(cfg)
    if done := finished(manifest, key):
        print(f"{cfg.run_name}: evaluation reused, same parameters, code and model (key {key})")
        return done
    start, problems = time.monotonic(), all_problems(cfg)
    records = two_attempts(Examinee.load(cfg), problems)
    records = [{"benchmark": p["benchmark"], **record} for p, record in zip(problems, records, strict=True)]
    scores = {name: accuracy([r for r in records if r["benchmark"] == name]) for name in cfg.benchmarks}
    return write_records(
        manifest,
        key,
        records,
        arm=cfg.arm,
        seed=None if cfg.arm == "base" else cfg.seed,
        accuracy=scores,
        generated_tokens=sum(record["tokens_1"] + record["tokens_2"] for record in records),
        seconds=round(time.monotonic() - start, 1),
    )
