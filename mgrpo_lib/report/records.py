"""Every record of an experiment as arrays, read from result files alone."""

import numpy as np
import pandas as pd

from mgrpo_lib.experiment import fingerprints, store
from mgrpo_lib.experiment.settings import Config


class Records:
    """Every record of an experiment, as arrays (seeds, problems); problems of a test set in the same order everywhere.

    Raises:
        FileNotFoundError: a model was not tested with these parameters.
        ValueError: records that are not those of their manifest, or of other problems than those of the first run.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.seeds = {arm: [None] if arm == "base" else list(cfg.seeds) for arm in ("base", *cfg.arms)}
        runs = {(run.arm, None if run.arm == "base" else run.seed): run for run in fingerprints.all_runs(cfg)}
        self.chains = {place: self._table(run, "records") for place, run in runs.items()}
        self.samples = {place: self._table(run, "samples") for place, run in runs.items()} if cfg.samples else {}
        groups = {None: cfg.of_arm("base")} | {seed: cfg.of_arm(next(iter(cfg.arms)), seed) for seed in cfg.seeds}
        self.controls = {seed: self._controls(group) for seed, group in groups.items()}
        first = self._problems(next(iter(self.chains.values())))
        for place, tables in self.chains.items():
            if self._problems(tables) != first:
                raise ValueError(
                    f"{place} was tested on other problems than the rest; delete its records and test it again"
                )

    def _table(self, run: Config, kind: str) -> dict[str, pd.DataFrame]:
        """The records of a run by test set."""
        manifest = self.cfg.results / kind / f"{run.run_name}.json"
        rows = pd.DataFrame(store.read_records(manifest, fingerprints.evaluation_key(run)))
        return dict(iter(rows.groupby("benchmark", sort=False)))

    def _problems(self, tables: dict[str, pd.DataFrame]) -> dict[str, list[tuple[str, str]]]:
        return {name: list(zip(table["id"], table["gold"], strict=True)) for name, table in tables.items()}

    def _controls(self, group: Config) -> dict[tuple[str, str, str], pd.DataFrame]:
        """The records of the controls by arm, condition and test set."""
        name = "base" if group.arm == "base" else f"seed{group.seed}"
        rows = store.read_records(self.cfg.results / "controls" / f"{name}.json", fingerprints.controls_key(group))
        columns = ["arm", "condition", "benchmark", "id", "answer", "correct"]
        return dict(iter(pd.DataFrame(rows, columns=columns).groupby(columns[:3], sort=False)))

    def chain(self, arm: str, benchmark: str, column: str) -> np.ndarray:
        """(seeds, problems) of a column of the chains of two attempts, such as ``correct_1``."""
        return np.stack([self.chains[arm, seed][benchmark][column].to_numpy() for seed in self.seeds[arm]])

    def control(self, arm: str, condition: str, benchmark: str, seeds: list) -> np.ndarray:
        """(seeds, problems) right or wrong of a control."""
        rows = [self.controls[seed][arm, condition, benchmark] for seed in seeds]
        for table in rows:  # the records of a set stand in its order; a probe has its first problems
            expected = self.chains["base", None][benchmark]["id"][: len(table)]
            if list(table["id"]) != list(expected):
                raise ValueError(f"the control {condition} of {arm} on {benchmark} is not of the problems of the set")
        return np.stack([table["correct"].to_numpy(dtype=bool) for table in rows])

    def sampled(self, arm: str, benchmark: str, column: str) -> np.ndarray:
        """(seeds, problems, samples) of a column of the samples."""
        return np.stack([np.stack(self.samples[arm, seed][benchmark][column].tolist()) for seed in self.seeds[arm]])

    def probed(self, arm: str, benchmark: str, column: str) -> np.ndarray:
        """`chain`, of the problems that are probed."""
        return self.chain(arm, benchmark, column)[:, : self.cfg.probe_problems]
