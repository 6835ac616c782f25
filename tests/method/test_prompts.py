"""Layer-2 prompts: token-exact in both voices, with templates that forget, and refused where they cannot be built."""

from pathlib import Path

import pytest
import trl
from transformers.utils.chat_template_utils import render_jinja_template

from mgrpo_lib.method.prompts import (
    PHRASES,
    PLAIN_TURNS,
    check_context,
    correction_ids,
    correction_prompt,
    guidance_ids,
    phrase_text,
    text_problem,
    user_turn,
)

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]


class Words:
    """A tokenizer that keeps every character, with any chat template."""

    def __init__(self, template: str):
        self.template = template

    def apply_chat_template(self, messages, tokenize, add_generation_prompt, **options):
        names = {"chat_template": self.template, "bos_token": "", "eos_token": "<eos>"}
        texts, _ = render_jinja_template([messages], add_generation_prompt=add_generation_prompt, **names, **options)
        return texts[0]

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(letter) for letter in text]}


def say(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "deepseek_r1_distill", "llama3_2", "phi3"])
def test_the_users_voice_keeps_the_whole_draft_whatever_the_template_forgets(name):
    tokenizer = Words((TEMPLATES / f"{name}.jinja").read_text())
    draft, phrase = "<think>two and two</think>The answer is 4", PHRASES[1]
    opening = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    between = guidance_ids(tokenizer, QUESTION, phrase, "user")
    text = "".join(map(chr, correction_ids(list(map(ord, opening)), list(map(ord, draft)), between, {0})))
    assert text.startswith(opening + draft) and text.count(phrase) == 1
    turns = correction_prompt(QUESTION, say(draft), phrase, "user")
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    forgets = name in ("qwen3", "deepseek_r1_distill")
    assert ("two and two" in rendered) != forgets, "TRL's templates changed: another list of those that forget"
    if not forgets:
        assert text == rendered, "a template that keeps everything must give the same text"


REWRITING = "{% if messages|length > 3 %}LONG {% endif %}{% for m in messages %}{{ m['content'] }}|{% endfor %}"
DROPPING = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}|{% endfor %}"


@pytest.mark.parametrize(
    ("template", "prompt"), [(REWRITING, QUESTION), (DROPPING, QUESTION), (PLAIN_TURNS, "2+2?")], ids=str
)
def test_where_a_users_turn_cannot_follow_the_assistants_voice_is_named(template, prompt):
    with pytest.raises(ValueError, match="phrase_role='assistant'"):
        user_turn(Words(template), prompt, PHRASES[0])


def test_a_model_without_a_template_gets_named_turns():
    between = user_turn(Words(PLAIN_TURNS), QUESTION, "Sure?")
    assert between == "<eos>\nUser: Sure?\nAssistant:"


def test_the_assistants_voice_goes_on_in_the_same_turn_through_every_layer():
    second = correction_prompt(QUESTION, say("four"), PHRASES[1])
    third = correction_prompt(second, say("five"), PHRASES[2])
    assert [message["role"] for message in third] == ["system", "user", "assistant"]
    assert third[-1]["content"] == f"four\n{PHRASES[1]}\nfive\n{PHRASES[2]}\n"
    by_user = correction_prompt(correction_prompt(QUESTION, say("four"), "Sure?", "user"), say("five"), "Sure?", "user")
    assert [message["role"] for message in by_user][1:] == ["user", "assistant", "user", "assistant", "user"]
    assert correction_prompt("2+2?", "four", "Hm.") == "2+2?four\nHm.\n"


@pytest.mark.parametrize("begun", ["Well,", [{"type": "text", "text": "Well,"}]])
def test_a_question_that_ends_with_the_assistant_keeps_that_turn_apart_as_the_template_does(begun):
    question = [*QUESTION, {"role": "assistant", "content": begun}]
    second = correction_prompt(question, say("four"), "Hm.")
    assert second == [*question, {"role": "assistant", "content": "four\nHm.\n"}]
    assert correction_prompt(second, say("five"), "Hm.")[-1]["content"] == "four\nHm.\nfive\nHm.\n"


def test_the_end_of_a_draft_is_dropped_once_and_only_at_the_end():
    assert correction_ids([1], [2, 9, 3, 9], [4], {9}) == [1, 2, 9, 3, 4]
    assert correction_ids([1], [2, 3], [4], {9}) == [1, 2, 3, 4]
    assert correction_ids([1], [], [4], {9}) == [1, 4]


def test_the_context_is_filled_to_the_last_token_and_not_beyond():
    check_context(context=100, question=20, phrase=10, attempts=3, attempt=20)
    with pytest.raises(ValueError, match="max_completion_length=21.* 20 or less"):
        check_context(context=100, question=20, phrase=10, attempts=3, attempt=21)


def test_there_are_seven_phrases_with_a_number_each():
    assert len(set(PHRASES)) == 7
    assert [phrase_text(number) for number in range(1, 8)] == PHRASES and phrase_text("Hm.") == "Hm."


@pytest.mark.parametrize(
    ("text", "sign", "fix"),
    [
        ("Answer in \boxed{}.", "x08", "backslash twice"),
        ("\frac{1}{2}?", "x0c", "single quotes"),
        ("\vec{x}", "x0b", "backslash twice"),
        ("\alpha", "x07", "backslash twice"),
        ("\text{x}", "t'", "backslash twice"),
        ("a \times b", "t'", "backslash twice"),
        ("so \neq 3", "n'", "backslash twice"),
        ("\rho", "r'", "backslash twice"),
        ("\x1b[1mSure?", "x1b", "backslash twice"),
        ("a\u2028b", "u2028", "backslash twice"),
        ("\ud83d", "ud83d", "backslash twice"),
        ("Sure?\u200b", "ZERO WIDTH SPACE", "delete"),
        ("\ufeffSure?", "ZERO WIDTH NO-BREAK SPACE", "delete"),
        ("Su\u00adre?", "SOFT HYPHEN", "delete"),
        ("\u202eSure?", "RIGHT-TO-LEFT OVERRIDE", "delete"),
        ("Is\u200dit?", "ZERO WIDTH JOINER", "delete"),
    ],
)
def test_characters_that_cannot_be_meant_are_named_with_the_fix(text, sign, fix):
    problem, found = text_problem("phrases", text)
    assert problem.startswith("phrases holds") and sign in problem and fix in found


@pytest.mark.parametrize(
    "text",
    [r"Box it: \boxed{}, \frac12.", "Two\nlines:\n\t- a list\n\tto read", "می‌خواهم", "👩‍🔬 Sûr ?", "a) x\ne) y", ""],
)
def test_what_is_seen_and_what_scripts_need_is_accepted(text):
    assert text_problem("phrases", text) is None
