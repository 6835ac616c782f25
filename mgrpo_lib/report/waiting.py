"""What two rounds of sampling cost on a GPU, where a round lasts as long as its longest row: counted in decoding passes."""

from statistics import mean

from mgrpo_lib.experiment import store
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report import records, verdicts


def expected_longest(*groups: tuple[list[int], int]) -> float:
    """Return the expected length of the longest row, by the exact distribution of a maximum.

    Args:
        groups: lengths to draw from, and how many rows are drawn from them.
    """
    longest, below, expected = sorted({length for lengths, _ in groups for length in lengths}), 0.0, 0.0
    for length in longest:
        share = 1.0
        for lengths, rows in groups:
            share *= (sum(one <= length for one in lengths) / len(lengths)) ** rows
        expected, below = expected + length * (share - below), share
    return expected


def passes(drafts: list[int], corrections: list[int], plain: list[int], rows: tuple[int, int, int]) -> dict[str, float]:
    """Return the expected decoding passes of a step, for each way to sample both layers, and of the baseline's one round.

    Args:
        drafts, corrections: lengths in tokens of attempts that belong together.
        plain: lengths of the baseline's completions.
        rows: drafts and corrections of a step of MGRPO, completions of a step of the baseline.
    """
    chains = [draft + correction for draft, correction in zip(drafts, corrections, strict=True)]
    return {
        "two rounds": expected_longest((drafts, rows[0])) + expected_longest((corrections, rows[1])),
        "as drafts end": expected_longest((drafts, rows[0]), (chains, rows[1])),
        "beside the next drafts": expected_longest((drafts, rows[0]), (corrections, rows[1])),
        "baseline": expected_longest((plain, rows[2])),
    }


def of_recorded_attempts(cfg: Config, benchmark: str) -> dict[str, float]:
    """Return each way of `passes` over the baseline, at equal sampled tokens, with the lengths of recorded attempts.

    They are greedy attempts of the trained models. Those that the training sampled are longer; only their means are kept.
    """
    run, plain = cfg.of_arm(verdicts.METHOD), cfg.of_arm(verdicts.BASELINE)
    attempts, single = (
        [
            one
            for seed in cfg.seeds
            for one in records.load_attempts(cfg.of_arm(each.arm, seed))
            if one["benchmark"] == benchmark
        ]
        for each in (run, plain)
    )
    first, second = ([one[f"tokens_{k}"] for one in attempts] for k in (1, 2))
    found = passes(first, second, [one["tokens_1"] for one in single], shape(cfg))
    scale = steps(cfg, run.arm)["number"] / steps(cfg, plain.arm)["number"] / found.pop("baseline")
    return {way: scale * number for way, number in found.items()}


def shape(cfg: Config) -> tuple[int, int, int]:
    """Return drafts and corrections of a step of MGRPO, and completions of a step of token-matched GRPO."""
    run, plain = cfg.of_arm(verdicts.METHOD), cfg.of_arm(verdicts.BASELINE)
    corrections = run.prompts_per_step * run.drafts_per_prompt * run.num_corrections
    return run.prompts_per_step * run.num_generations, corrections, plain.prompts_per_step * plain.num_generations


def steps(cfg: Config, arm: str) -> dict[str, float]:
    """Return, of an arm's trainings, steps of a seed and seconds of a step, as means, and how many steps there are and sampled a
    draft, or a correction, that reached the limit of tokens.
    """
    runs = [store.read_jsonl(cfg.of_arm(arm, seed).run_folder / "metrics.jsonl") for seed in cfg.seeds]
    every = [step for run in runs for step in run]
    cut = {name: sum(step.get(f"{name}completions/clipped_ratio", 0) > 0 for step in every) for name in ("", "layer2/")}
    seconds = mean(step["step_time"] for step in every)
    return {
        "number": mean(map(len, runs)), "seconds": seconds, "all": len(every), "long_drafts": cut[""],
        "long_corrections": cut["layer2/"],
    }  # fmt: skip
