"""Train your chat model with MGRPO and LoRA on your problems; compare both attempts before and after.

.venv/bin/python examples/train_lora.py --model FOLDER_OR_HUB_ID --data examples/problems.jsonl
"""

import argparse
import warnings
from pathlib import Path

from mgrpo_lib import MGRPOConfig, MGRPOTrainer, accuracy_reward  # first: it silences a warning of bitsandbytes

# isort: split

import torch
from datasets import Dataset
from transformers import PrinterCallback

from mgrpo_lib.experiment.data import own_problems
from mgrpo_lib.experiment.evaluate import two_attempts
from mgrpo_lib.experiment.models import compute_dtype, lora
from mgrpo_lib.experiment.watch import Lines
from mgrpo_lib.explore.ask import compare_records, load
from mgrpo_lib.method.prompts import chat_prompt, plain_turns
from mgrpo_lib.report.typeset import markdown
from mgrpo_lib.tasks.decontamination import clean, shuffled
from mgrpo_lib.tasks.files import load_file

# Yours to change: these three, the rewards, and the arguments of MGRPOConfig below
SYSTEM = "Solve the problem step by step. Put the final number into \\boxed{}."
PHRASE = "Wait, let me double-check that."  # between a draft and its correction, in training and at test
RANK = 16  # of LoRA


def boxed(completions, **columns):
    """Your own reward: a number for each completion, here 0.25 for any box. The data's columns, such as answer, are lists."""
    return [0.25 * ("\\boxed{" in completion[-1]["content"]) for completion in completions]


REWARDS = [accuracy_reward, boxed]  # they are added up; the first one says what is right, in training and in the table


def load_policy(given, adapter=None):
    """Load the model with its tokenizer, and the rules by which it is asked."""
    model = str(Path(given.model).resolve()) if Path(given.model).is_dir() else given.model
    rules = {
        "system_prompt": SYSTEM,
        "eval_phrase": PHRASE,
        "max_completion_length": given.length,
        "eval_batch_size": 20,
    }
    policy = load(model, adapter, load_in_4bit=given.nf4, lora_rank=RANK, **rules)
    if policy.tokenizer.chat_template == plain_turns(policy.tokenizer):
        raise ValueError(f"--model {model} has no chat template; add its chat_template.jinja, or take a chat model")
    policy.reward = REWARDS[0]
    return policy


def prepare(given):
    """Read the problems, put LoRA on the model, and refuse what cannot be trained before anything runs."""
    read = own_problems if accuracy_reward in REWARDS else load_file  # the former checks golds as math
    kept, dropped = clean(read(given.data), {})  # each problem once
    rows = shuffled(kept)
    held_out = min(200, len(rows) // 3)
    if held_out < 2:
        raise ValueError(f"--data {given.data} has {len(rows)} different problems; give 6 or more")
    if min(given.steps, given.length) < 1:
        raise ValueError(f"--steps {given.steps}, --length {given.length}: give 1 or more")
    policy, cpu = load_policy(given), not torch.cuda.is_available()
    policy.questions(rows)  # two attempts at each must fit into the model's context
    dtype, why = compute_dtype(cpu)
    if doubles := sum(dropped.values()):
        print(f"{doubles} of {len(rows) + doubles} problems left out: they stand in {given.data} twice")
    print("CPU: torch sees no GPU" if cpu else f"GPU: {torch.cuda.get_device_name()}", why, sep="; ")
    args = MGRPOConfig(
        given.out, max_steps=given.steps, max_completion_length=given.length, phrases=[PHRASE],
        learning_rate=1e-4,  # the default is for all weights of a 7B model; LoRA learns nothing with it
        per_device_train_batch_size=8, gradient_accumulation_steps=4,  # a step: 4 problems with 8 drafts each
        bf16=dtype == torch.bfloat16, fp16=dtype == torch.float16, use_cpu=cpu, gradient_checkpointing=not cpu,
        logging_steps=1, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_list([{**row, "prompt": chat_prompt(row["question"], SYSTEM)} for row in rows[held_out:]])
    how = {"train_dataset": data, "processing_class": policy.tokenizer, "peft_config": lora(RANK, 2 * RANK)}
    trainer = MGRPOTrainer(policy.model, REWARDS, args, **how)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Lines())
    return policy, trainer, rows[:held_out]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder or hub id of a chat model")
    parser.add_argument("--data", required=True, help="problems: .jsonl, .json or .csv with question and answer")
    parser.add_argument("--nf4", action="store_true", help="keep the base weights in 4 bits")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps; default: 30")
    parser.add_argument("--length", type=int, default=320, help="tokens of an attempt, at most; default: 320")
    parser.add_argument("--out", default="out/train_lora", help="folder of the adapter; default: out/train_lora")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)  # TRL uses a name that transformers is renaming
    try:
        policy, trainer, test = prepare(given)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{len(trainer.train_dataset)} problems to train on, {len(test)} to test on; testing before training")
    policy.model = trainer.model.eval()  # with LoRA, which starts at zero
    before = two_attempts(policy, test)
    trainer.train()
    policy.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    after = two_attempts(policy, test)
    policy.model.save_pretrained(f"{given.out}/adapter")
    trainer.save_state()  # trainer_state.json holds every metric of every step
    print(markdown(compare_records({"before": before, "after": after})))
    cut = [sum(record["truncated_1"] for record in records) for records in (before, after)]
    print(f"first attempts that were cut off at {given.length} tokens: {cut[0]} before, {cut[1]} after")
    del trainer, policy  # the memory of the first copy
    again = two_attempts(load_policy(given, f"{given.out}/adapter"), test)
    same = sum(old == new for old, new in zip(after, again, strict=True))
    print(f"{given.out}/adapter, loaded again: the same two completions at {same} of {len(test)} problems")


if __name__ == "__main__":
    main()
