"""Prompts of both layers: the question (layer 1), and the question with a draft and a guiding phrase (layer 2 and
deeper).

The paper could not be read in full. Its layer-1 template (its Table 1) and its guiding phrases are known from two
independent second-hand sources. Its layer-2 template is known only in structure: question, the whole draft, a guiding
phrase. We continue in the assistant's voice, because the phrases are in the first person; the paper's exact wording is unknown.
"""

import re
import unicodedata

from jinja2 import TemplateError

# Seven phrases, same order in both second-hand sources; whether the paper's pool has more is unknown. The sixth is cut
# off in both.
PHRASES = [
    "Where might I have gone wrong this time? Let me double-check carefully.",
    "Wait, let me double-check that.",
    "Wait a minute, let me make sure I didn't make a mistake.",
    "Hmm, let me think if there's another way to approach this problem.",
    "Wait, maybe I can think about it like this:",
    "Another thought: maybe I can",
    "But wait, let me make sure I didn't miss anything in the original problem.",
]


def phrase_text(phrase: int | str) -> str:
    """A guiding phrase: a text, or the number (from 1) of one of `PHRASES`."""
    if isinstance(phrase, int) and not 1 <= phrase <= len(PHRASES):
        raise ValueError(f"phrase {phrase} does not exist; give a number from 1 to {len(PHRASES)}, or a text")
    return phrase if isinstance(phrase, str) else PHRASES[phrase - 1]


# After the paper's Table 1 as two independent sources give it. They differ in single words ("a helpful", "mathematical"; we
# keep them) and in how the final answer is marked; we ask for \boxed{}, which the reward looks for.
SYSTEM_PROMPT = (
    "You are a helpful AI assistant. A conversation between User and Assistant. The User asks a mathematical question, and the Assistant "
    "solves it step-by-step. The Assistant must first output a detailed step-by-step reasoning process enclosed within <think></think> tags. "
    "After the </think> tag, the Assistant must provide the final answer within \\boxed{}."
)

# For a model without a chat template, such as a base model: the roles that the paper's system prompt speaks of, by name. The
# assistant's has no blank behind it: in most vocabularies that belongs to the next word's token
PLAIN_TURNS = (
    "{% for m in messages %}{{ m['content'] if m['role'] == 'system' else "
    "m['role'].capitalize() + (':' if m['role'] == 'assistant' else ': ') + m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else '' }}\n{% endfor %}{{ 'Assistant:' if add_generation_prompt else '' }}"
)


def plain_turns(tokenizer) -> str:
    """Return `PLAIN_TURNS` for a tokenizer: behind BOS if it begins its texts so, since a template has to write that itself."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return "{{ bos_token }}" * begins + PLAIN_TURNS


Prompt = str | list[dict[str, str]]

# what is left of a TeX command, such as \text or \neq, whose first letters became a tab or a line end
REMNANT = re.compile(
    r"\t(?=(?:ext(?:bf|it|rm|tt)?|imes|heta|an|anh|au|frac|o|op|riangle|ilde|herefore)(?![a-z]))"
    r"|\n(?=(?:eq|abla|ot|otin|leq|geq)(?![a-z]))"
)
# joiners that emoji, Persian and Indic scripts are written with
JOINER = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")


def text_problem(name: str, text: str) -> tuple[str, str] | None:
    r"""Return what is wrong with a setting's text, and the fix, if it holds a control or format character; else None.

    In double quotes YAML and Python read the ``\b`` of ``\boxed`` as a backspace.

    >>> text_problem("system_prompt", "Answer in \boxed{}.")[0]
    "system_prompt holds the control character '\\x08'"
    """
    text = JOINER.sub("", text)
    unseen = (c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t")
    if (odd := next(unseen, None)) and unicodedata.category(odd) == "Cf":
        return f"{name} holds {odd!r} ({unicodedata.name(odd, 'unnamed')}), which is not seen", "delete it"
    if odd or (odd := REMNANT.search(text)):
        fix = "write the backslash twice, as in \\\\boxed, or in YAML in single quotes, '\\boxed'"
        return f"{name} holds the control character {odd if isinstance(odd, str) else odd[0]!r}", fix
    return None


def chat_prompt(question: str, system: str | None = None) -> Prompt:
    """Write the layer-1 conversation of a question.

    Args:
        system: the system prompt; None: the paper's; empty: none, and a chat template may add its own.
    """
    system = SYSTEM_PROMPT if system is None else system
    return [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": question}]


def guidance(phrase: str) -> str:
    """What stands between a draft and its correction in the assistant's voice."""
    return f"\n{phrase}\n"


def user_turn(tokenizer, prompt: Prompt, phrase: str, **template) -> str:
    """What stands between a draft and its correction if the *user* says the phrase: the end of the assistant's turn,
    the user's turn, the opening of the next answer, all in the words of the model's chat template.

    Many templates leave the ``<think>`` part of earlier answers out (Qwen3, DeepSeek-R1). That cannot happen here: the
    template only writes what stands around a placeholder, and the draft's own tokens take its place.

    Args:
        tokenizer: with a chat template.
        prompt: any layer-1 conversation.
        template: further arguments of ``apply_chat_template``.

    Raises:
        ValueError: a plain-text prompt, or a template that changes what stands before a draft once a turn follows it.
    """
    if isinstance(prompt, str):
        raise ValueError(
            "phrase_role='user' needs conversations, and the prompt is plain text; use phrase_role='assistant'"
        )
    placeholder = "(here stands the draft)"
    turns = [*prompt, {"role": "assistant", "content": placeholder}, {"role": "user", "content": phrase}]
    try:
        texts = [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **template)
            for messages in (prompt, turns)
        ]
    except TemplateError as error:
        raise ValueError(
            f"this chat template takes no user's turn after an answer ({error}); use phrase_role='assistant', or another "
            "chat_template"
        ) from error
    before, found, after = texts[1].partition(placeholder)
    if not found or phrase.strip() not in after or not texts[0].startswith(before):
        raise ValueError(
            "this chat template rewrites the conversation before a draft once a user's turn follows, so the draft would "
            "stand in another context than it was written in; use phrase_role='assistant', or another chat_template"
        )
    return after


def guidance_ids(tokenizer, prompt: Prompt, phrase: str, role: str, **template) -> list[int]:
    """The tokens of `guidance` (role ``assistant``) or of `user_turn` (role ``user``)."""
    text = guidance(phrase) if role == "assistant" else user_turn(tokenizer, prompt, phrase, **template)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


class Conversation(list):
    """A layer-2 prompt in messages. What is added to it goes on in the assistant's open turn, so that a reward model, to which
    TRL gives prompt + completion, reads one well-formed conversation.
    """

    def __add__(self, completion):
        (*turns, open_turn), (first, *rest) = self, completion
        if open_turn["role"] != first["role"]:
            return [*self, *completion]
        return [*turns, {**open_turn, "content": open_turn["content"] + first["content"]}, *rest]


def correction_prompt(prompt: Prompt, completion: Prompt, phrase: str, role: str = "assistant") -> Prompt:
    """The layer-2 prompt as text or messages: question, whole draft, guiding phrase, in the assistant's voice or as a
    turn of the user. Reward functions and the log see this; the model sees `correction_ids`.
    """
    if isinstance(prompt, str):
        return prompt + completion + guidance(phrase)
    draft = completion[-1]["content"]
    if isinstance(prompt, Conversation) and prompt[-1]["role"] == "assistant":  # a correction: the same turn goes on
        *prompt, begun = prompt
        draft = begun["content"] + draft
    if role == "user":
        return Conversation([*prompt, {"role": "assistant", "content": draft}, {"role": "user", "content": phrase}])
    return Conversation([*prompt, {"role": "assistant", "content": draft + guidance(phrase)}])


def correction_ids(
    prompt_ids: list[int], completion_ids: list[int], guidance_ids: list[int], eos_ids: set[int]
) -> list[int]:
    """The same in tokens, exactly as the policy wrote them: no decoding and re-tokenising of the draft.

    The draft's end-of-sequence token is dropped: either the assistant goes on speaking, or `guidance_ids` begin with
    it. A truncated draft has none.
    """
    ended = bool(completion_ids) and completion_ids[-1] in eos_ids
    return prompt_ids + (completion_ids[:-1] if ended else completion_ids) + guidance_ids


def check_context(context: int, question: int, phrase: int, attempts: int, attempt: int) -> None:
    """Refuses attempts and phrases that cannot all stand in a model's context.

    Args:
        context, question, phrase, attempt: tokens of the context, the longest question, the longest phrase, one
            attempt at most.
        attempts: how many of them follow each other.

    Raises:
        ValueError: with the length that fits.
    """
    between = (attempts - 1) * phrase
    if question + between + attempts * attempt > context:
        fits = (context - question - between) // attempts
        fix = f"set max_completion_length to {fits} or less, use fewer layers, or " if fits > 0 else ""
        raise ValueError(
            f"the longest question ({question} tokens), {attempts} attempts of max_completion_length={attempt} and the "
            f"phrases between them ({between}) exceed the model's context of {context} tokens; {fix}leave out the longest "
            "questions, or shorten the system prompt"
        )
