"""How the metrics of each layer stay apart (their meaning: `mgrpo_lib.method.logged`)."""

from collections import defaultdict, deque
from contextlib import contextmanager

import torch
from trl import GRPOTrainer


class LayerMetrics(GRPOTrainer):
    """TRL's trainer with metrics for each layer."""

    def _make_room(self, rows: int) -> None:
        """Let TRL's log of completions hold the rows of all layers."""
        for key, value in self._logs.items():
            room = deque(maxlen=rows)
            self._logs[key] = defaultdict(lambda: deque(maxlen=rows)) if isinstance(value, defaultdict) else room

    @contextmanager
    def _metrics_of(self, number: int):
        """Put what TRL logs meanwhile under ``layer<number>/``, beside layer 1's and not into its means."""
        if number == 1:
            yield
            return
        mode = "train" if self.model.training else "eval"
        main, self._metrics[mode] = self._metrics[mode], defaultdict(list)
        try:
            yield
        finally:
            side, self._metrics[mode] = self._metrics[mode], main
            for key, values in side.items():
                if key in ("num_tokens", "generated_tokens"):
                    main[key] = values
                else:  # all layers have one entropy coefficient
                    main[key if key == "entropy_coef" else f"layer{number}/{key}"].extend(values)

    def _log_changes(self, advantage: torch.Tensor, changed: dict[str, float], total: int) -> None:
        """Log what the corrections did to their drafts, as shares of all that are no fillers.

        Args:
            advantage: (rows,) of this process.
            changed: sums over this process, as `mgrpo_lib.method.drafts.changes` gives them.
            total: rows of all processes, fillers too.
        """
        log = self._logs["advantages"]  # TRL has logged its own
        for place, value in enumerate(reversed(self.accelerator.gather(advantage).tolist()), start=1):
            if place <= len(log):
                log[-place] = value
        real, *counts = self._gather([list(changed.values())]).sum(0).tolist()
        metrics = self._metrics["train" if self.model.training else "eval"]
        (constant,) = metrics.pop("frac_reward_zero_std")
        if real:
            if (
                self.args.num_corrections > 1
            ):  # TRL took fillers for groups with a signal; a group of one has none to lack
                metrics["frac_reward_zero_std"].append(min(1.0, constant * total / real))
            for name, count in zip(list(changed)[1:], counts, strict=True):
                metrics[name].append(count / real)
