"""Tokenizer, chat template and model go together, or are refused before anything runs, with the fix."""

import chat
import pytest
import tiny
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOTrainer

from mgrpo_lib.method.config import MGRPOConfig
from mgrpo_lib.method.prompts import chat_prompt, plain_turns
from mgrpo_lib.method.tokenizers import check_template, check_vocabulary, embeddings
from mgrpo_lib.method.trainer import MGRPOTrainer

GEMMA = (  # as Google's: no system message, roles alternate
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
ALTERNATING = GEMMA.partition("{% endif %}")[2]
DROPPING = chat.CHATML.replace("messages %}", "messages if m.role != 'system' %}")
BLOCKS = chat.CHATML.replace("m['content']", "m['content'][0]['text']")
ONE_TURN = "{% if messages | length > 2 %}{{ raise_exception('one turn alone') }}{% endif %}" + chat.CHATML


def build(tmp_path, tokenizer, prompt, model=None, **options):
    args = MGRPOConfig(output_dir=str(tmp_path), **{**tiny.COMMON, **options})
    rows = Dataset.from_list([{"prompt": prompt, "number": i} for i in range(8)])
    model = model or chat.make_model(tokenizer)
    return MGRPOTrainer(model, tiny.parity, args, rows, processing_class=tokenizer)


def tokens(trainer) -> list[int]:
    """The tokens of the first prompt, as TRL makes them."""
    return GRPOTrainer._tokenize_prompts(trainer, [trainer.train_dataset[0]["prompt"]])[0][0]


# --------------------------------------------------------------------------------------------------------------- BOS
@pytest.mark.parametrize("begins", [True, False])
def test_a_prompt_begins_with_bos_once_where_the_tokenizer_writes_one(begins, tmp_path):
    tokenizer = chat.make_tokenizer(None, begins)
    tokenizer.chat_template = plain_turns(tokenizer)
    for prompt in (chat_prompt("2+2?", ""), "2+2?"):
        ids = tokens(build(tmp_path, tokenizer, prompt))
        assert ids.count(chat.BOS) == begins and (ids[0] == chat.BOS) == begins


def test_a_second_bos_and_an_end_behind_the_prompt_are_refused(tmp_path):
    tokenizer = chat.make_tokenizer("{{ bos_token }}" + chat.CHATML, begins=True)
    text = tokenizer.apply_chat_template(chat_prompt("2+2?", ""), tokenize=False, add_generation_prompt=True)
    with pytest.raises(ValueError, match="<s>.*give conversations"):
        build(tmp_path, tokenizer, text, num_layers=1)
    ending = chat.make_tokenizer(ends=True)
    with pytest.raises(ValueError, match="add_eos_token=False"):
        check_template(ending, "2+2?", {})
    check_template(tokenizer, "2+2?", {})
    check_template(chat.make_tokenizer(), "2+2?<|im_end|>", {})


# ---------------------------------------------------------------------------------------------------------- templates
@pytest.mark.parametrize(
    ("template", "system", "named"),
    [
        (GEMMA, None, "System role not supported.*system_prompt=''"),
        (ALTERNATING, None, "roles must alternate.*system_prompt=''"),
        (DROPPING, "Be brief.", "'Be brief.'.*system_prompt=''"),
        (BLOCKS, "", "chat_template"),
        (None, "", r"chat_template.*plain_turns\(tokenizer\)"),
        ("{{ no.such.thing }}", "", "chat_template"),
    ],
)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_template_that_cannot_write_the_prompt_is_refused(template, system, named, layers, tmp_path):
    with pytest.raises(ValueError, match=named):
        build(tmp_path, chat.make_tokenizer(template), chat_prompt("2+2?", system), num_layers=layers)


@pytest.mark.parametrize("role", ["assistant", "user"])
@pytest.mark.parametrize("template", [GEMMA, ALTERNATING, DROPPING, chat.CHATML])
def test_without_a_system_message_every_role_trains_and_layer_2_reads_the_whole_draft(template, role, tmp_path):
    tokenizer = chat.make_tokenizer(template)
    args = {"phrase_role": role, "num_corrections": 2, "max_completion_length": 8}
    trainer = build(tmp_path, tokenizer, chat_prompt("2+2?", ""), **args)
    trainer.__class__ = tiny.Recording
    layers = tiny.generate(trainer).layers
    drafts, corrections, ends = layers[1], layers[2], set(trainer.eos_token_ids)
    for parent, ids in zip(corrections.parents, corrections.prompt_ids, strict=True):
        draft = drafts.completion_ids[parent]
        before = drafts.prompt_ids[parent] + (draft[:-1] if draft[-1] in ends else draft)
        assert ids[: len(before)] == before and ids[len(before) :] in trainer._guidance.values()


def test_a_template_that_takes_no_second_turn_is_refused_for_the_users_voice(tmp_path):
    tokenizer = chat.make_tokenizer(ONE_TURN)
    build(tmp_path, tokenizer, chat_prompt("2+2?", "Add."))
    with pytest.raises(ValueError, match="one turn alone.*phrase_role='assistant'"):
        build(tmp_path, tokenizer, chat_prompt("2+2?", "Add."), phrase_role="user")


def test_flags_that_are_the_trainers_own_are_refused(tmp_path):
    with pytest.raises(ValueError, match="chat_template_kwargs sets add_generation_prompt.*leave it out"):
        build(tmp_path, chat.make_tokenizer(), chat_prompt("?"), chat_template_kwargs={"add_generation_prompt": False})


# --------------------------------------------------------------------------------------------------------- vocabulary
@pytest.mark.parametrize("name", ["pad_token", "eos_token"])
def test_a_token_without_an_embedding_is_refused_with_both_sizes(name, tmp_path):
    plain, tokenizer = chat.make_tokenizer(), chat.make_tokenizer(**{name: "<new>"})
    assert len(tokenizer) > len(plain)
    named = f"{name} '<new>'.*{len(plain)} embeddings.*{len(tokenizer)} tokens.*resize_token_embeddings"
    for layers in (1, 2):
        with pytest.raises(ValueError, match=named):
            build(tmp_path, tokenizer, chat_prompt("?"), chat.make_model(plain), num_layers=layers)
    build(tmp_path, tokenizer, chat_prompt("?"), chat.make_model(plain, len(tokenizer)))


def test_a_token_of_a_prompt_or_a_phrase_without_an_embedding_is_refused(tmp_path):
    plain, tokenizer = chat.make_tokenizer(), chat.make_tokenizer(extra_special_tokens=["<new>"])
    build(tmp_path, tokenizer, chat_prompt("?"), chat.make_model(plain))
    for prompt, phrase in ((chat_prompt("<new>?"), "Sure?"), (chat_prompt("?"), "Sure<new>?")):
        with pytest.raises(ValueError, match="'<new>'"):
            build(tmp_path, tokenizer, prompt, chat.make_model(plain), phrases=[phrase])


def test_a_tokenizer_without_an_end_is_refused():
    with pytest.raises(ValueError, match="no eos_token; set tokenizer.eos_token"):
        check_vocabulary(chat.make_tokenizer(eos_token=None), 300)


def test_as_many_embeddings_as_the_model_has_count(folder):
    model, tokenizer = chat.make_model(chat.make_tokenizer(), 400), AutoTokenizer.from_pretrained(folder)
    assert embeddings(model) == 400
    model.resize_token_embeddings(500)
    assert embeddings(model) == 500
    check_vocabulary(tokenizer, len(tokenizer), [[len(tokenizer) - 1]])
    with pytest.raises(ValueError):
        check_vocabulary(tokenizer, len(tokenizer) - 1, [[len(tokenizer) - 1]])
