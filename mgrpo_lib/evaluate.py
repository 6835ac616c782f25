"""Two attempts at every problem, greedy and by the same rules for every model, and a record of each.

Nothing here but the scorer sees a gold answer: drafts, phrases and stopping do not depend on it.
"""

import time

import torch

from mgrpo_lib.config import Config
from mgrpo_lib.data import test_problems, validation_problems
from mgrpo_lib.models import limit_threads, load_policy
from mgrpo_lib.progress import Progress
from mgrpo_lib.prompts import PHRASES, check_context, correction_ids, first_prompt, guidance_ids
from mgrpo_lib.rewards import extract_answer, same_answer
from mgrpo_lib.store import environment, evaluation_key, finished, finished_run, validation_key, write_json, write_jsonl


@torch.no_grad()
def generate(model, tokenizer, prompt_ids: list[list[int]], max_new_tokens: int, batch_size: int) -> list[list[int]]:
    """Greedy completions as token ids, each up to and with its end-of-sequence token (without one: truncated).

    Prompts are batched by length and padded on the left; the batch size is part of the result, since padding can change
    the last bits of a logit.
    """
    completions: list[list[int]] = [[] for _ in prompt_ids]
    ends = end_tokens(model, tokenizer)
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [prompt_ids[i] for i in rows]}, return_tensors="pt", padding_side="left"
        ).to(model.device)
        out = model.generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        for i, ids in zip(rows, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((k + 1 for k, token in enumerate(ids) if token in ends), len(ids))
            completions[i] = ids[:end]
    return completions


def end_tokens(model, tokenizer) -> set[int]:
    """Every token that ends a completion: chat models have more than their tokenizer's one."""
    ids = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *([] if ids is None else [ids] if isinstance(ids, int) else ids)}


def two_attempts(model, tokenizer, problems: list[dict], cfg: Config) -> list[dict]:
    """First attempts, then second ones that see question, first attempt and guiding phrase.

    Returns:
        A record for each problem: ``id, question, gold`` and, for attempt k in 1 and 2, ``text_k, answer_k, correct_k,
        tokens_k, truncated_k``.
    """
    questions = [first_prompt(problem["question"], cfg.template) for problem in problems]
    if cfg.template == "chat":
        prompts = [
            tokenizer.apply_chat_template(q, add_generation_prompt=True, tokenize=True, return_dict=False)
            for q in questions
        ]
    else:
        prompts = tokenizer(questions, add_special_tokens=False)["input_ids"]
    between = guidance_ids(tokenizer, questions[0], PHRASES[cfg.eval_phrase - 1], cfg.phrase_role)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # some models have no limit
    if context is not None:
        check_context(context, max(map(len, prompts)), len(between), 2, cfg.max_completion_length)
    first = generate(model, tokenizer, prompts, cfg.max_completion_length, cfg.eval_batch_size)
    ends = end_tokens(model, tokenizer)
    again = [correction_ids(p, c, between, ends) for p, c in zip(prompts, first, strict=True)]
    second = generate(model, tokenizer, again, cfg.max_completion_length, cfg.eval_batch_size)
    records = [
        {"id": problem["id"], "question": problem["question"], "gold": problem["answer"]} for problem in problems
    ]
    for attempt, completions in ((1, first), (2, second)):
        texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
        for record, ids, text in zip(records, completions, texts, strict=True):
            answer = extract_answer(text)
            record[f"text_{attempt}"] = text
            record[f"answer_{attempt}"] = answer
            record[f"correct_{attempt}"] = same_answer(answer, record["gold"])
            record[f"tokens_{attempt}"] = len(ids)
            record[f"truncated_{attempt}"] = ids[-1] not in ends
    return records


def accuracy(records: list[dict]) -> dict[str, float]:
    """Share of right answers at each attempt."""
    return {f"acc_t{k}": sum(record[f"correct_{k}"] for record in records) / len(records) for k in (1, 2)}


def _trained(cfg: Config):
    """The model of this arm and seed, if it was trained with just these parameters.

    Raises:
        FileNotFoundError: it was not.
    """
    if finished_run(cfg) is None:
        raise FileNotFoundError(
            f"{cfg.run_name} is not trained with these parameters in {cfg.run_folder}; run its training notebook "
            f"first (or `make reproduce PROFILE={cfg.profile}`)"
        )
    limit_threads(cfg)
    return load_policy(cfg)


def validate(cfg: Config) -> dict[str, float]:
    """Accuracy of one arm and seed at both attempts on the validation set, on which settings are chosen; kept beside
    the run in ``validation.json``.
    """
    file, key = cfg.run_folder / "validation.json", validation_key(cfg)
    if done := finished(file, key):
        return done["accuracy"]
    scores = accuracy(two_attempts(*_trained(cfg), validation_problems(cfg), cfg))
    write_json(file, {"key": key, "n": cfg.validation_problems, "accuracy": scores, "environment": environment()})
    return scores


def evaluate(cfg: Config) -> dict:
    """Both attempts of one arm and seed on every test set; records go to ``records/<run>.jsonl`` in the results folder.

    Returns:
        The manifest: key, seconds, generated tokens, and the accuracy on each benchmark.
    """
    manifest, key = cfg.results / "records" / f"{cfg.run_name}.json", evaluation_key(cfg)
    if done := finished(manifest, key):
        print(f"{cfg.run_name}: evaluation reused, same parameters, code and model (key {key})")
        return done
    model, tokenizer = _trained(cfg)
    start, records, scores = time.monotonic(), [], {}
    progress = Progress(cfg.results / "progress" / f"evaluate-{cfg.run_name}.json", len(cfg.benchmarks))
    for i, benchmark in enumerate(cfg.benchmarks):
        some = two_attempts(model, tokenizer, test_problems(cfg, benchmark), cfg)
        records += [{"benchmark": benchmark, **record} for record in some]
        scores[benchmark] = accuracy(some)
        progress.update(
            i + 1, f"{cfg.run_name} {benchmark} {scores[benchmark]['acc_t1']:.2f}/{scores[benchmark]['acc_t2']:.2f}"
        )
    write_jsonl(manifest.with_suffix(".jsonl"), records)
    done = {
        "key": key,
        "arm": cfg.arm,
        "seed": None if cfg.arm == "base" else cfg.seed,
        "accuracy": scores,
        "generated_tokens": sum(record["tokens_1"] + record["tokens_2"] for record in records),
        "seconds": round(time.monotonic() - start, 1),
        "environment": environment(),
    }
    write_json(manifest, done)
    return done
