"""Records of an experiment as arrays, from result files of any version of the code (no torch)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgrpo_lib.experiment import keys, store
from mgrpo_lib.experiment.settings import Config


def expected_key(key: Callable[..., str], run: Config, manifest: Path, training: int | None = None) -> str:
    """Return the key that a manifest must have, for the versions that it says made it.

    Args:
        key: a function of `mgrpo_lib.experiment.keys` that takes the run and its versions.
        training: the training version that its inputs have; None: the one that the manifest names.
    """
    try:
        made = keys.made_with(manifest)
        return key(run, made if training is None else made._replace(training=training))
    except (OSError, ValueError, KeyError):  # missing, damaged or of an unknown version: no present result is like it
        return key(run)


def load_run(run: Config) -> dict[str, Any]:
    """Load the manifest of a training run, with its validation accuracy if that was measured.

    Raises:
        FileNotFoundError: the run was not trained with these parameters.
    """
    file, checked = run.manifest("run"), run.run_folder / "validation.json"
    manifest = store.finished(file, expected_key(keys.run_key, run, file))
    if manifest is None:
        raise FileNotFoundError(
            f"{file} is missing or was made with other parameters; run `make reproduce` with the same PROFILE, OUT and PARAMS"
        )
    training = manifest["environment"]["training_version"]
    validation = store.finished(checked, expected_key(keys.validation_key, run, checked, training))
    return {**manifest, "validation": validation and validation["accuracy"]}


def load_attempts(run: Config) -> list[dict]:
    """Load the records of a run: both attempts at every test problem."""
    manifest = run.manifest("records")
    return store.read_records(manifest, expected_key(keys.evaluation_key, run, manifest))


class Records:
    """Every record of an experiment, as arrays (seeds, problems); problems of a set have the same order everywhere.

    Raises:
        FileNotFoundError: a model was not trained or tested with these parameters.
        ValueError: records that are not those of their manifest, or of other problems than the first run's.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.seeds = {arm: [None] if arm == "base" else list(cfg.seeds) for arm in ("base", *cfg.arms)}
        self.keys: dict[str, str] = {}  # of each run's records
        self.versions: dict[str, set[int]] = {"training": set(), "evaluation": set()}
        runs = {(run.arm, None if run.arm == "base" else run.seed): run for run in keys.all_runs(cfg)}
        self.runs = {run.run_name: load_run(run) for run in runs.values()}
        self.versions["training"] = {self._training(run) for run in runs.values()}
        self.chains = {place: self._table(run, "records") for place, run in runs.items()}
        self.samples = {place: self._table(run, "samples") for place, run in runs.items()} if cfg.samples else {}
        groups = {None: cfg.of_arm("base")} | {seed: cfg.of_arm(next(iter(cfg.arms)), seed) for seed in cfg.seeds}
        self.controls = {seed: self._controls(group) for seed, group in groups.items()}
        first = self._problems(next(iter(self.chains.values())))
        for (arm, seed), tables in self.chains.items():
            if self._problems(tables) != first:
                raise ValueError(
                    f"arm {arm}, seed {seed} was tested on other problems than the rest; delete its records and test it again"
                )

    def _training(self, run: Config) -> int:
        return self.runs[run.run_name]["environment"]["training_version"]

    def _read(self, kind: str, name: str, key: Callable[..., str], run: Config, training: int) -> list[dict]:
        """Read the records of a manifest, if they are of the models that were trained last."""
        manifest = self.cfg.results / kind / f"{name}.json"
        expected = expected_key(key, run, manifest, training)
        rows = store.read_records(manifest, expected)
        self.versions["evaluation"].add(keys.made_with(manifest).evaluation)
        if kind == "records":
            self.keys[name] = expected
        return rows

    def _table(self, run: Config, kind: str) -> dict[str, pd.DataFrame]:
        """Return the records of a run by test set."""
        rows = self._read(kind, run.run_name, keys.evaluation_key, run, self._training(run))
        return dict(iter(pd.DataFrame(rows).groupby("benchmark", sort=False)))

    def _problems(self, tables: dict[str, pd.DataFrame]) -> dict[str, list[tuple[str, str]]]:
        return {name: list(zip(table["id"], table["gold"], strict=True)) for name, table in tables.items()}

    def _controls(self, group: Config) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Return the records of the controls by arm, condition and test set."""
        training = max(self._training(run) for run in keys.tested_together(group))
        name = keys.group_name(group)
        rows = self._read("controls", name, keys.controls_key, group, training)
        columns = ["arm", "condition", "benchmark", "id", "answer", "correct"]
        return dict(iter(pd.DataFrame(rows, columns=columns).groupby(columns[:3], sort=False)))

    def chain(self, arm: str, benchmark: str, column: str) -> np.ndarray:
        """Return (seeds, problems) of a column of the pairs of attempts, such as ``correct_1``."""
        return np.stack([self.chains[arm, seed][benchmark][column].to_numpy() for seed in self.seeds[arm]])

    def control(self, arm: str, condition: str, benchmark: str, seeds: list) -> np.ndarray:
        """Return (seeds, problems) right or wrong of a control."""
        rows = [self.controls[seed][arm, condition, benchmark] for seed in seeds]
        for table in rows:  # the records of a set stand in its order; a probe has its first problems
            expected = self.chains["base", None][benchmark]["id"][: len(table)]
            if list(table["id"]) != list(expected):
                raise ValueError(f"the control {condition} of {arm} on {benchmark} is not of the problems of the set")
        return np.stack([table["correct"].to_numpy(dtype=bool) for table in rows])

    def sampled(self, arm: str, benchmark: str, column: str) -> np.ndarray:
        """Return (seeds, problems, samples) of a column of the samples."""
        return np.stack([np.stack(self.samples[arm, seed][benchmark][column].tolist()) for seed in self.seeds[arm]])

    def probed(self, arm: str, benchmark: str, column: str) -> np.ndarray:
        """Return `chain` of the problems that are probed."""
        return self.chain(arm, benchmark, column)[:, : self.cfg.probe_problems]
