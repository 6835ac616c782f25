"""Layer-2 prompts: token-exact in both voices, with templates that forget, and refused where they cannot be built."""

from pathlib import Path

import pytest
import trl

from mgrpo_lib.method.prompts import PHRASES, check_context, correction_ids, correction_prompt, guidance_ids, user_turn

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]


class Words:
    """A tokenizer that keeps every character, with any chat template."""

    def __init__(self, template: str):
        self.template = template

    def apply_chat_template(self, messages, tokenize, add_generation_prompt, **options):
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, _ = render_jinja_template(
            [messages],
            chat_template=self.template,
            add_generation_prompt=add_generation_prompt,
            bos_token="",
            **options,
        )
        return texts[0]

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(letter) for letter in text]}


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "deepseek_r1_distill", "llama3_2", "phi3"])
def test_the_users_voice_keeps_the_whole_draft_whatever_the_template_forgets(name):
    tokenizer = Words((TEMPLATES / f"{name}.jinja").read_text())
    draft, phrase = "<think>two and two</think>The answer is 4", PHRASES[1]
    opening = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    between = guidance_ids(tokenizer, QUESTION, phrase, "user")
    ids = correction_ids(*([ord(letter) for letter in text] for text in (opening, draft)), between, {0})
    text = "".join(map(chr, ids))
    assert text.startswith(opening + draft) and text.count(phrase) == 1
    rendered = tokenizer.apply_chat_template(
        correction_prompt(QUESTION, [{"role": "assistant", "content": draft}], phrase, "user"),
        tokenize=False,
        add_generation_prompt=True,
    )
    forgets = name in ("qwen3", "deepseek_r1_distill")
    assert ("two and two" in rendered) != forgets, (
        "TRL's templates changed; the list of those that forget is no longer true"
    )
    if not forgets:
        assert text == rendered, "a template that keeps everything must give the same text"


def test_a_template_that_rewrites_what_came_before_is_refused():
    rewriting = Words(
        "{% if messages|length > 3 %}LONG {% endif %}{% for m in messages %}{{ m['content'] }}|{% endfor %}"
    )
    with pytest.raises(ValueError, match="use phrase_role='assistant'"):
        user_turn(rewriting, QUESTION, PHRASES[0])
    dropping = Words("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}|{% endfor %}")
    with pytest.raises(ValueError, match="use phrase_role='assistant'"):
        user_turn(dropping, QUESTION, PHRASES[0])
    with pytest.raises(ValueError, match="plain text"):
        user_turn(dropping, "2+2?", PHRASES[0])


def test_the_assistants_voice_goes_on_in_the_same_turn_through_every_layer():
    def say(text):
        return [{"role": "assistant", "content": text}]

    second = correction_prompt(QUESTION, say("four"), PHRASES[1])
    third = correction_prompt(second, say("five"), PHRASES[2])
    assert [message["role"] for message in third] == ["system", "user", "assistant"]
    assert third[-1]["content"] == f"four\n{PHRASES[1]}\nfive\n{PHRASES[2]}\n"
    by_user = correction_prompt(correction_prompt(QUESTION, say("four"), "Sure?", "user"), say("five"), "Sure?", "user")
    assert [message["role"] for message in by_user][1:] == ["user", "assistant", "user", "assistant", "user"]
    assert correction_prompt("2+2?", "four", "Hm.") == "2+2?four\nHm.\n"


def test_the_end_of_a_draft_is_dropped_once_and_only_at_the_end():
    assert correction_ids([1], [2, 9, 3, 9], [4], {9}) == [1, 2, 9, 3, 4]
    assert correction_ids([1], [2, 3], [4], {9}) == [1, 2, 3, 4]
    assert correction_ids([1], [], [4], {9}) == [1, 4]


def test_the_context_is_filled_to_the_last_token_and_not_beyond():
    check_context(context=100, question=20, phrase=10, attempts=3, attempt=20)
    with pytest.raises(ValueError, match="set max_completion_length to 20 or less"):
        check_context(context=100, question=20, phrase=10, attempts=3, attempt=21)


def test_there_are_seven_phrases():
    assert len(PHRASES) == len(set(PHRASES)) == 7
