"""Prompts of both layers: the question (layer 1), and the question with a draft and a guiding phrase (layer 2 and
deeper).

The paper could not be read in full. Its layer-1 template (its Table 1) and its guiding phrases are known from two
independent second-hand sources; its layer-2 template only in structure: question, the whole draft, a guiding phrase. We
continue in the assistant's voice, because the phrases are in the first person; the paper's exact wording is unknown.
"""

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

# After the paper's Table 1 as two independent sources give it. They differ in single words ("a helpful", "mathematical"; we
# keep them) and in how the final answer is marked; we ask for \boxed{}, which the reward looks for.
SYSTEM_PROMPT = (
    "You are a helpful AI assistant. A conversation between User and Assistant. The User asks a mathematical question, and the Assistant "
    "solves it step-by-step. The Assistant must first output a detailed step-by-step reasoning process enclosed within <think></think> tags. "
    "After the </think> tag, the Assistant must provide the final answer within \\boxed{}."
)

Prompt = str | list[dict[str, str]]


def first_prompt(question: str, template: str) -> Prompt:
    """The layer-1 prompt of a question.

    Args:
        question: the problem's text.
        template: ``chat`` (messages with the paper's system prompt, for a model with a chat template) or ``miniature``
            (plain text).

    Raises:
        ValueError: unknown template.
    """
    if template == "chat":
        return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
    if template == "miniature":
        return f"<q>{question}<a>"
    raise ValueError(f"unknown prompt template {template!r}: one of chat, miniature")


def guidance(phrase: str) -> str:
    """What stands between a draft and its correction."""
    return f"\n{phrase}\n"


def correction_prompt(prompt: Prompt, completion: Prompt, phrase: str) -> Prompt:
    """The layer-2 prompt as text or messages: question, whole draft, guiding phrase, in the assistant's voice."""
    if isinstance(prompt, str):
        return prompt + completion + guidance(phrase)
    return [*prompt, {"role": "assistant", "content": completion[-1]["content"] + guidance(phrase)}]


def correction_ids(
    prompt_ids: list[int], completion_ids: list[int], guidance_ids: list[int], eos_ids: set[int]
) -> list[int]:
    """The same in tokens, exactly as the policy wrote them: no decoding and re-tokenising of the draft.

    The draft's end-of-sequence token is dropped, since the assistant goes on speaking; a truncated draft has none.
    """
    ended = bool(completion_ids) and completion_ids[-1] in eos_ids
    return prompt_ids + (completion_ids[:-1] if ended else completion_ids) + guidance_ids
