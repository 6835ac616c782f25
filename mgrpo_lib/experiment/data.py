"""The training, validation and test problems of a profile.

Of a real training set, or a file of your own, the cleaned rows are put into a fixed order (`decontamination.shuffled`). The
first ones are the validation problems, the next ones the training problems.
"""

from pathlib import Path

from mgrpo_lib.experiment.settings import GENERATED, GENERATORS, Config
from mgrpo_lib.tasks import miniature
from mgrpo_lib.tasks.benchmarks import SETS, read_benchmark
from mgrpo_lib.tasks.decontamination import clean, shuffled
from mgrpo_lib.tasks.files import load_file
from mgrpo_lib.verifier.reward import check_gold, extract_answer


def training_problems(cfg: Config) -> list[dict]:
    """Return a profile's training problems, different from each other and from every held-out one."""
    return training_sets(cfg)[0]


def validation_problems(cfg: Config) -> list[dict]:
    """Return held-out problems of the training distribution, on which settings are chosen; never a test set."""
    return training_sets(cfg)[1]


def training_sets(cfg: Config) -> tuple[list[dict], list[dict], dict[str, int]]:
    """Return training problems, validation problems, and how many rows cleaning dropped, by reason.

    Generated sets need no cleaning.

    Raises:
        ValueError: fewer problems are left than a step needs.
    """
    if cfg.train_data in GENERATORS:
        made, name = GENERATORS[cfg.train_data].problems, GENERATORS[cfg.train_data].TRAINING
        return made(name, "train", cfg.train_problems), made(name, "validation", cfg.validation_problems), {}
    rows, dropped = clean_training_set(cfg)
    rows = shuffled(rows)
    validation, train = rows[: cfg.validation_problems], rows[cfg.validation_problems :][: cfg.train_problems or None]
    if len(train) < cfg.prompts_per_step:
        shared = max(dropped, key=dropped.get)
        least, left_out = cfg.prompts_per_step, ", ".join(f"{name}: {n}" for name, n in dropped.items())
        fix = f"set validation_problems to {len(rows) - least} or less" if len(rows) > least + 1 else "give more data"
        if 2 * dropped[shared] > len(rows):
            fix = f"most of them are in {shared}, too: give other data"
        raise ValueError(
            f"{cfg.train_data} has {len(train)} questions left to train on, after cleaning ({left_out}) and without "
            f"validation_problems {cfg.validation_problems}; a step needs {least}: {fix}"
        )
    return train, validation, dropped


def test_problems(cfg: Config, benchmark: str) -> list[dict]:
    """Return the problems of a test set; of a real one a sample, or all that there are."""
    if benchmark in GENERATED:
        return GENERATED[benchmark].problems(benchmark, "test", cfg.test_problems, seed=cfg.test_draw)
    return shuffled(whole_set(cfg, benchmark, "test"), cfg.test_draw)[: cfg.test_problems or None]


def check_count(cfg: Config, benchmark: str, rows: list[dict]) -> None:
    """Refuse a test set that is too small to compare arms on: an interval needs two problems."""
    if cfg.arms and len(rows) < 2:
        raise ValueError(f"benchmarks: {benchmark} has one problem, and arms are compared on two or more; add rows")


def problems_at_hand(cfg: Config, hub: bool = False) -> list[dict]:
    """Return the problems of every set that is made or lies here; with `hub`, of all others too.

    Raises:
        ValueError: a set that cannot be used.
        ConnectionError: the Hub cannot be reached.
    """
    here = {*GENERATORS, *GENERATED, *cfg.files, *(SETS if cfg.data_folder or hub else [])}
    tests = {name: test_problems(cfg, name) for name in cfg.benchmarks if name in here}
    for name, problems in tests.items():
        check_count(cfg, name, problems)
    rows = [row for problems in tests.values() for row in problems]
    if cfg.train_data not in GENERATORS and not here.issuperset(cfg.benchmarks):  # not to be cleaned yet
        return rows + (whole_set(cfg, cfg.train_data, "train") if cfg.train_data in here else [])
    if cfg.train_data in here:
        train, validation, _ = training_sets(cfg)
        rows += train + validation
    return rows


def whole_set(cfg: Config, name: str, split: str) -> list[dict]:
    """Return every row of a real benchmark's split, or of the user's file, whose golds are read as completions are.

    Raises:
        ValueError: a gold of the user's that no completion can equal, or a question that the miniature cannot read; with the row
            and the fix.
    """
    if name not in cfg.files:
        return read_benchmark(name, split, cfg.data_folder)
    rows = own_problems(cfg.files[name])
    for number, row in enumerate(rows, 1):
        if cfg.is_miniature and (sign := miniature.unreadable(row["question"])):
            raise ValueError(
                f"{cfg.files[name].name}, row {number}: the miniature cannot read {sign!r}, but chains such as '7 a+8 b*3' and blanks "
                "such as '7 a+? b-3 =4'; set model to a language model (for make: MODEL=)"
            )
    return rows


def own_problems(file: str | Path) -> list[dict]:
    """Return every row of a file of your own (`load_file`), with gold answers that `accuracy_reward` can find right.

    Raises:
        ValueError: a file or row that cannot be used, or a gold that no completion can equal; with the row and the fix.
    """
    name, rows, whole_solutions = Path(file).name, load_file(file), 0
    for number, row in enumerate(rows, 1):
        if "####" in row["answer"]:  # a whole solution, as GSM8K has them
            row["answer"] = extract_answer(row["answer"]) or row["answer"]
            whole_solutions += 1
        if why := check_gold(row["answer"]):
            raise ValueError(f"{name}, row {number}: the answer {row['answer'][:60]!r} {why}")
    if whole_solutions:
        print(f"note: {name}: {whole_solutions} answers are whole solutions; what follows #### is the gold")
    return rows


def clean_training_set(cfg: Config) -> tuple[list[dict], dict[str, int]]:
    """Clean a training set that is not generated of what it shares with the experiment's test sets and its own test split.

    Generated test sets are left out, since they have no end. See `decontamination.clean`.
    """
    tests = [name for name in cfg.benchmarks if name not in GENERATED]
    tests += [cfg.train_data] * (cfg.train_data in SETS and cfg.train_data not in tests)
    return clean(whole_set(cfg, cfg.train_data, "train"), {name: whole_set(cfg, name, "test") for name in tests})
