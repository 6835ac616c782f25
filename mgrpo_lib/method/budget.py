"""The budget of a training run in sampled tokens, the only measure in which arms with unlike layers can be compared."""

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class TokenBudget(TrainerCallback, ExportableState):
    """Counts generated tokens, through checkpoints too, and stops at the step nearest to `max_generated_tokens`.

    Raises:
        ValueError: a resume from a checkpoint that was saved in the middle of a generation, or between drafts and their
            corrections.
    """

    def __init__(self):
        self.generated_tokens = 0

    def state(self) -> dict:
        return {"args": {}, "attributes": {"generated_tokens": self.generated_tokens}}

    def on_train_begin(self, args, state, control, **kwargs):
        if args.num_layers > 1 and state.global_step % args.steps_per_turn:
            raise ValueError(
                f"the checkpoint of step {state.global_step} was saved while its rollouts were in use, and they are not in it; "
                f"resume from a step that is a multiple of {args.steps_per_turn}"
            )
        saved = state.stateful_callbacks.get(type(self).__name__, self.state()) if state.global_step else None
        self.generated_tokens = saved["attributes"]["generated_tokens"] if saved else 0

    def on_step_end(self, args, state, control, **kwargs):
        if args.max_generated_tokens is not None:
            half_a_step = self.generated_tokens / state.global_step / 2
            if self.generated_tokens + half_a_step >= args.max_generated_tokens:
                control.should_training_stop = True
