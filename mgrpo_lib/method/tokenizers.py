"""Whether tokenizer, chat template and model go together: checked before anything runs, by the trainer and at test alike."""

import inspect
from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateError

from mgrpo_lib.method.prompts import Prompt


def embeddings(model) -> int:
    """Return how many tokens a model has an embedding for."""
    return getattr(model.get_input_embeddings(), "num_embeddings", None) or model.config.get_text_config().vocab_size


def check_vocabulary(tokenizer, size: int, prompts: Iterable[list[int]] = ()) -> None:
    """Refuse tokens that a model has no embedding for.

    Args:
        size: embeddings of the model.
        prompts: token ids of some prompts.

    Raises:
        ValueError: names the token, both sizes and the fix.
    """
    fixes = {name: f"set {name} to one of the model's own tokens" for name in ("eos_token", "pad_token")}
    used = {name: getattr(tokenizer, f"{name}_id") for name in fixes}
    for name, token in used.items():
        if token is None:
            raise ValueError(f"the tokenizer has no {name}; set tokenizer.{name}, in a folder in tokenizer_config.json")
    used["the prompts' token"] = max((max(ids, default=0) for ids in prompts), default=0)
    for name, token in used.items():
        if token >= size:
            raise ValueError(
                f"{name} {tokenizer.convert_ids_to_tokens(token)!r} has the id {token}, and the model has {size} embeddings (its "
                f"tokenizer {len(tokenizer)} tokens); take the tokenizer that came with the model, "
                f"{fixes.get(name, 'leave the token out')}, or save the model after "
                f"model.resize_token_embeddings({len(tokenizer)})"
            )


def check_template(tokenizer, prompt: Prompt, flags: dict[str, Any]) -> None:
    """Refuse a prompt that the tokenizer cannot write as intended.

    Args:
        prompt: any layer-1 prompt.
        flags: ``chat_template_kwargs``.

    Raises:
        ValueError: no chat template, or one that refuses or drops a message; a flag that is the trainer's; a text that gets a
            second BOS or an end token. The message names the fix.
    """
    if isinstance(prompt, str):
        _check_text(tokenizer, prompt)
        return
    if tokenizer.chat_template is None:
        raise ValueError(
            "the tokenizer has no chat template, and the prompts are conversations; set tokenizer.chat_template, for example to "
            "mgrpo_lib.method.prompts.plain_turns(tokenizer), or give the prompts as text"
        )
    if taken := flags.keys() & inspect.signature(tokenizer.apply_chat_template).parameters.keys() - {"documents"}:
        raise ValueError(f"chat_template_kwargs sets {min(taken)}, which is set here already; leave it out")

    def written(messages: list[dict]) -> str:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **flags)

    no_system = "set system_prompt='', or leave the system message out of your own prompts"
    try:
        text = written(prompt)
    except (TemplateError, TypeError) as error:
        without = [message for message in prompt if message["role"] != "system"]
        try:
            written(without)
        except (TemplateError, TypeError):
            without = prompt
        what, fix = "the conversation", "set another tokenizer.chat_template, or give the prompts as text"
        if len(without) < len(prompt):
            what, fix = "a system message", no_system
        raise ValueError(f"the chat template refuses {what} ({error}); {fix}") from error
    for role, fix in (("user", "set another tokenizer.chat_template"), ("system", no_system)):
        said = [message["content"] for message in prompt if message["role"] == role]
        if lost := [content for content in said if isinstance(content, str) and content.strip() not in text]:
            raise ValueError(f"the chat template drops a message of role {role}, {lost[0][:60]!r}; {fix}")


def _check_text(tokenizer, text: str) -> None:
    """Refuse a text that begins with BOS twice, or behind which the tokenizer writes an end token."""
    ids, begin, end = tokenizer(text)["input_ids"], tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is not None and ids[:2] == [begin, begin]:
        raise ValueError(
            f"the prompts begin with {tokenizer.bos_token}, and the tokenizer adds it once more; give conversations, which its chat "
            "template writes, or leave it out of the text"
        )
    if end is not None and ids[-1:] == [end] != tokenizer(text, add_special_tokens=False)["input_ids"][-1:]:
        raise ValueError(
            f"the tokenizer ends every prompt with {tokenizer.eos_token}, so that nothing could follow; load it with "
            "add_eos_token=False"
        )
