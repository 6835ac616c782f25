"""Show the curves of a running training in an open notebook. They change no number."""

import io
import time
from collections.abc import Callable

import pandas as pd
from IPython.display import Image, display
from transformers import TrainerCallback

from mgrpo_lib.experiment.progress import notebook_is_open
from mgrpo_lib.experiment.settings import Config
from mgrpo_lib.report import figures

SECONDS = 4.0  # between two pictures


class Curves(TrainerCallback):
    """Redraw reward, fixed and broken corrections, and lengths in place; do nothing outside an open notebook.

    Args:
        cfg: the run that is trained.
        draws: whether to draw; None: find out whether the notebook is open.
        now: a clock, in seconds.
    """

    def __init__(self, cfg: Config, draws: bool | None = None, now: Callable[[], float] = time.monotonic):
        self.name, self.now = cfg.run_name, now
        self.draws = notebook_is_open() if draws is None else draws
        self.handle, self.drawn = None, float("-inf")  # of the picture on show

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.draws and "loss" in logs and self.now() - self.drawn >= SECONDS:
            self.draw(state)

    def on_train_end(self, args, state, control, **kwargs):
        if self.draws:
            self.draw(state)

    def draw(self, state) -> None:
        """Replace the picture by the curves of all logged steps, those before an interruption included."""
        steps = pd.DataFrame([entry for entry in state.log_history if "loss" in entry])
        if steps.empty:
            return
        title = f"{self.name}, step {state.global_step}"
        figure, file = figures.training_curves(steps, title), io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        figures.plt.close(figure)  # else the notebook would show it a second time
        image = Image(file.getvalue(), format="png", width=990, metadata={"alt": title})
        if self.handle is None:
            self.handle = display(image, display_id=True)
        else:
            self.handle.update(image)
        self.drawn = self.now()
