"""Two attempts at every problem, greedy and by the same rules for every model, and a record of each.

Only `Evaluator.grade` sees a gold answer: drafts, phrases and stopping do not depend on it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from mgrpo_lib.experiment.data import test_problems, validation_problems
from mgrpo_lib.experiment.keys import evaluation_key, validation_key
from mgrpo_lib.experiment.models import limit_threads, load_policy
from mgrpo_lib.experiment.progress import clock, say
from mgrpo_lib.experiment.prompts import check_room, phrase_ids, prompt_ids
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.experiment.store import environment, finished, write_json, write_records
from mgrpo_lib.method.prompts import PHRASES, correction_ids
from mgrpo_lib.method.tokenizers import check_vocabulary, embeddings
from mgrpo_lib.verifier.reward import accuracy_reward, extract_answer

SECONDS_BETWEEN_LINES = 20.0


class _Lines(StoppingCriteria):
    """Say now and then how far sampling is: asked after every token, it stops nothing."""

    def __init__(self, total: int, most: int):
        self.total, self.most, self.start, self.width = total, most, 0, 0
        self.begun = self.said = time.monotonic()

    def __call__(self, ids: torch.Tensor, scores: Any, **kwargs) -> torch.Tensor:
        if (now := time.monotonic()) - self.said > SECONDS_BETWEEN_LINES:
            self.said, token = now, ids.shape[1] - self.width
            share = (self.start + len(ids) * token / self.most) / self.total
            gone, where = now - self.begun, f"the next {len(ids)} are at token {token} of at most {self.most}"
            rate, to_go = self.total * share / gone, clock(gone * (1 - share) / share)
            say(
                f"{self.start} of {self.total} completions, {where}, {rate:.2g} a second or more, at most {to_go} to go"
            )
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


@dataclass
class Evaluator:
    """Answer problems by the rules of a profile: its prompts, its lengths, its batch size.

    The model's own decoding rules (repetition penalty and the like) are replaced, so that all models share one rule.
    Chat models have more end tokens than their tokenizer's one; all of them are kept.
    """

    cfg: Config
    model: Any
    tokenizer: Any
    reward: Callable[..., list[float]] = accuracy_reward  # what is right: see a trainer's first reward function

    def __post_init__(self):
        ends = self.model.generation_config.eos_token_id
        self.ends = {self.tokenizer.eos_token_id} | set(
            [] if ends is None else [ends] if isinstance(ends, int) else ends
        )
        self.model.generation_config = GenerationConfig(
            eos_token_id=sorted(self.ends), pad_token_id=self.tokenizer.pad_token_id
        )

    @classmethod
    def load(cls, cfg: Config) -> "Evaluator":
        """Load the model of this arm and seed.

        Raises:
            FileNotFoundError: it is not trained with these parameters.
        """
        limit_threads(cfg)
        return cls(cfg, *load_policy(cfg))

    def questions(self, problems: list[dict]) -> list[list[int]]:
        """Return the prompts of the first attempt, as token ids.

        Raises:
            ValueError: the chat template cannot write them, the model has no embedding for some token, or two attempts do
                not fit into its context.
        """
        prompts = prompt_ids(self.cfg, self.tokenizer, problems)
        check_vocabulary(self.tokenizer, embeddings(self.model), prompts)
        phrases = [*PHRASES, self.cfg.eval_phrase]
        check_room(self.cfg, self.tokenizer, self.model.config.get_text_config(), prompts, phrases)
        return prompts

    def phrase_ids(self, phrase: int | str) -> list[int]:
        """Return the tokens between a draft and its correction; `phrase` is a number from 1, or a text."""
        return phrase_ids(self.cfg, self.tokenizer, phrase)

    def corrections(
        self, prompts: list[list[int]], drafts: list[list[int]], phrase: int | str | None = None
    ) -> list[list[int]]:
        """Return the prompts of the second attempt: question, draft, guiding phrase (None: the profile's)."""
        between = self.phrase_ids(self.cfg.eval_phrase if phrase is None else phrase)
        return [correction_ids(*pair, between, self.ends) for pair in zip(prompts, drafts, strict=True)]

    @torch.no_grad()
    def attempt(
        self, prompts: list[list[int]], temperature: float = 0.0, batch_size: int | None = None
    ) -> list[list[int]]:
        """Complete each prompt, up to and with its end token; a completion without one is truncated.

        Prompts are batched by length and padded on the left. The batch size is part of the result, since padding can
        change the last bits of a logit.

        Args:
            prompts: token ids.
            temperature: 0: greedy, and equal prompts are completed once.
            batch_size: None: the profile's.
        """
        size, rows = batch_size or self.cfg.eval_batch_size, [tuple(ids) for ids in prompts]
        if temperature:
            rule = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        else:
            rows, rule = list(dict.fromkeys(rows)), {"do_sample": False}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        completions: list[list[int]] = [[] for _ in rows]
        lines = _Lines(len(order), self.cfg.max_completion_length)
        for start in range(0, len(order), size):
            batch = {"input_ids": [list(rows[i]) for i in order[start : start + size]]}
            batch = self.tokenizer.pad(batch, return_tensors="pt", padding_side="left").to(self.model.device)
            lines.start, lines.width = start, batch["input_ids"].shape[1]
            told = StoppingCriteriaList([lines])
            out = self.model.generate(**batch, max_new_tokens=lines.most, stopping_criteria=told, **rule)
            written = out[:, batch["input_ids"].shape[1] :].tolist()
            for i, ids in zip(order[start : start + size], written, strict=True):
                end = next((k for k, token in enumerate(ids, 1) if token in self.ends), len(ids))
                completions[i] = ids[:end]
        if temperature:
            return completions
        completion_of = dict(zip(rows, completions, strict=True))
        return [completion_of[tuple(ids)] for ids in prompts]

    def both_attempts(self, problems: list[dict], **how: Any) -> tuple[list[list[int]], list[list[int]]]:
        """Return first attempts and corrections of them, as token ids; `how` goes to `attempt`."""
        prompts = self.questions(problems)
        first = self.attempt(prompts, **how)
        return first, self.attempt(self.corrections(prompts, first), **how)

    def grade(self, problems: list[dict], completions: list[list[int]]) -> list[dict]:
        """Return ``text, answer, correct, tokens, truncated`` of each completion."""
        grades = []
        texts = self.tokenizer.batch_decode(completions, skip_special_tokens=True)
        # as TRL gives a reward function its completions and the other columns of the data
        given = [[{"role": "assistant", "content": text}] for text in texts] if not self.cfg.is_miniature else texts
        columns = {name: [problem[name] for problem in problems] for name in ("question", "answer")}
        rewards = self.reward(completions=given, **columns)
        for ids, text, reward in zip(completions, texts, rewards, strict=True):
            answer = extract_answer(text)
            correct, truncated = reward > self.cfg.right_above, ids[-1] not in self.ends
            grades.append(
                {"text": text, "answer": answer, "correct": correct, "tokens": len(ids), "truncated": truncated}
            )
        return grades


def two_attempts(evaluator: Evaluator, problems: list[dict]) -> list[dict]:
    """Record first attempts, and second ones that see question, first attempt and guiding phrase.

    Returns:
        A record for each problem: ``id, question, gold``, for attempt k in 1 and 2 ``text_k, answer_k, correct_k,
        tokens_k, truncated_k``, and the first attempt's tokens ``ids_1``.
    """
    attempts = evaluator.both_attempts(problems)
    grades = [evaluator.grade(problems, completions) for completions in attempts]
    records = []
    for problem, ids, *own in zip(problems, attempts[0], *grades, strict=True):
        record = {"id": problem["id"], "question": problem["question"], "gold": problem["answer"]}
        for k, grade in enumerate(own, 1):
            record |= {f"{name}_{k}": value for name, value in grade.items()}
        records.append({**record, "ids_1": ids})
    return records


def accuracy(records: list[dict]) -> dict[str, float]:
    """Return the share of right answers at each attempt."""
    return {f"acc_t{k}": sum(record[f"correct_{k}"] for record in records) / len(records) for k in (1, 2)}


def validate(cfg: Config) -> dict[str, float]:
    """Return the accuracy of both attempts on the validation set, on which settings are chosen.

    It is kept beside the run in ``validation.json``.
    """
    file, key = cfg.run_folder / "validation.json", validation_key(cfg)
    if done := finished(file, key):
        return done["accuracy"]
    scores = accuracy(two_attempts(Evaluator.load(cfg), validation_problems(cfg)))
    write_json(file, {"key": key, "n": cfg.validation_problems, "accuracy": scores, "environment": environment()})
    return scores


def all_problems(cfg: Config) -> list[dict]:
    """Return the problems of every test set, each with its ``benchmark``."""
    return [{**problem, "benchmark": name} for name in cfg.benchmarks for problem in test_problems(cfg, name)]


def evaluate(cfg: Config) -> dict:
    """Record both attempts of one arm and seed on every test set, in ``records/<run>.jsonl.gz`` of the results folder.

    Returns:
        The manifest: key, digest of the records, seconds, generated tokens, and the accuracy on each benchmark.
    """
    manifest, key = cfg.manifest("records"), evaluation_key(cfg)
    if done := finished(manifest, key):
        print(f"{cfg.run_name}: evaluation reused, same settings, version and model (key {key})")
        return done
    start, problems = time.monotonic(), all_problems(cfg)
    records = two_attempts(Evaluator.load(cfg), problems)
    records = [{"benchmark": p["benchmark"], **record} for p, record in zip(problems, records, strict=True)]
    return write_records(
        manifest,
        key,
        records,
        arm=cfg.arm,
        seed=None if cfg.arm == "base" else cfg.seed,
        accuracy={name: accuracy([r for r in records if r["benchmark"] == name]) for name in cfg.benchmarks},
        generated_tokens=sum(record["tokens_1"] + record["tokens_2"] for record in records),
        seconds=round(time.monotonic() - start, 1),
    )
