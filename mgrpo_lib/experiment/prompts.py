"""The prompts of a profile as tokens, and whether its tokenizer, chat template, model and context go with them."""

import re

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from mgrpo_lib.experiment.models import load_tokenizer, loader_arguments, missing_explained
from mgrpo_lib.experiment.settings import Config, ConfigError
from mgrpo_lib.method.prompts import PHRASES, check_context, guidance_ids, phrase_text
from mgrpo_lib.method.tokenizers import check_template, check_vocabulary

LONGEST = 100  # questions whose tokens are counted beforehand, the longest by characters


def prompt_ids(cfg: Config, tokenizer: PreTrainedTokenizerBase, problems: list[dict]) -> list[list[int]]:
    """Return the prompts of first attempts as token ids.

    Raises:
        ValueError: the chat template cannot write them.
    """
    prompts = [cfg.prompt(problem["question"]) for problem in problems]
    if cfg.is_miniature:
        return tokenizer(prompts, add_special_tokens=False)["input_ids"]
    check_template(tokenizer, prompts[0], cfg.chat_template_kwargs)
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": False, **cfg.chat_template_kwargs}
    return [tokenizer.apply_chat_template(prompt, **how) for prompt in prompts]


def solution_ids(cfg: Config, tokenizer: PreTrainedTokenizerBase, problems: list[dict]) -> list[list[int]]:
    """Return worked solutions as token ids, each as an answer to its prompt, to the end of the assistant's turn."""
    placeholder = "(here stands the solution)"
    turns = [*cfg.prompt("1 + 1 = ?"), {"role": "assistant", "content": placeholder}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, **cfg.chat_template_kwargs)
    solutions = [problem["solution"] + text.partition(placeholder)[2] for problem in problems]
    return tokenizer(solutions, add_special_tokens=False)["input_ids"]


def phrase_ids(cfg: Config, tokenizer: PreTrainedTokenizerBase, phrase: int | str) -> list[int]:
    """Return the tokens between a draft and its correction; `phrase` is a number from 1, or a text."""
    prompt, flags = cfg.prompt("1 + 1 = ?"), cfg.chat_template_kwargs
    return guidance_ids(tokenizer, prompt, phrase_text(phrase), cfg.phrase_role, **flags)


def check_room(
    cfg: Config,
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    prompts: list[list[int]],
    phrases: list[int | str],
    attempts: int = 2,
) -> None:
    """Refuse prompts whose attempts do not fit into the model's context; some models have none.

    Args:
        config: of the model's text part.
        attempts: how many follow each other, a phrase between them.

    Raises:
        ValueError: names the `max_completion_length` that fits.
    """
    context = getattr(config, "max_position_embeddings", None)
    if context is not None:
        phrase = max(len(phrase_ids(cfg, tokenizer, phrase)) for phrase in phrases)
        check_context(context, max(map(len, prompts)), phrase, attempts, cfg.max_completion_length)


def check_prompts(cfg: Config, problems: list[dict]) -> None:
    """Refuse a language model that does not go with an experiment's prompts, in any arm, before anything is trained.

    Raises:
        ConfigError: the model is not found, or its tokenizer, chat template, vocabulary or context do not fit; with the fix.
    """
    location = cfg.model_location
    with missing_explained(location):
        config = AutoConfig.from_pretrained(location, **loader_arguments(cfg, location)).get_text_config()
    tokenizer, flags = load_tokenizer(cfg, location), cfg.chat_template_kwargs
    longest = sorted(problems, key=lambda problem: len(problem["question"]))[-LONGEST:]
    longest = longest or [{"question": "1 + 1 = ?"}]  # all sets are on the hub
    try:
        for run in (cfg.of_arm(arm) for arm in ("base", *cfg.arms)):
            phrases = [*PHRASES, *run.phrases, run.eval_phrase]
            prompts = prompt_ids(run, tokenizer, longest)
            between = [phrase_ids(run, tokenizer, phrase) for phrase in phrases]
            check_vocabulary(tokenizer, config.vocab_size, [*prompts, *between])
            attempts = 2 if run.arm == "base" else max(2, run.num_layers)
            check_room(run, tokenizer, config, prompts, phrases, attempts)
    except ValueError as error:
        raise ConfigError(f"model {cfg.model}: {error}") from error
    template = tokenizer.get_chat_template()
    if unread := [name for name in flags if not re.search(rf"\b{re.escape(name)}\b", template)]:
        print(f"note: the chat template of {cfg.model} does not read {', '.join(unread)} of chat_template_kwargs")
    if "strftime_now" in template and "date_string" in template and "date_string" not in flags:
        print("note: the chat template writes today's date; chat_template_kwargs={date_string: 26 Jul 2024} fixes one")
