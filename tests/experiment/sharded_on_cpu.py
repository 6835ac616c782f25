"""Run by `test_launch.py` in place of `-m mgrpo_lib.experiment.train`, with the same arguments after three of its own: FSDP and
DeepSpeed in processes without a GPU.

On CPUs accelerate takes plain DDP, whatever its configuration says. Here it is told that they are GPUs; everything else,
from the configuration to the files of the run, is what the command line does.
"""

import json
import os
import sys

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # accelerate reads it for the device of a process

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from mgrpo_lib.experiment import models, train


def shard_on_cpu() -> None:
    original = PartialState.__init__

    def init(self, cpu=False, **kwargs):
        original(self, cpu=False, **kwargs)

    PartialState.__init__ = init
    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_GPU)


def main(report: str, dtype: str, stop: str) -> int:
    """Trains; writes what was cut, and raises in step `stop`."""
    shard_on_cpu()
    trainers, build = [], train.build_trainer

    def building(*arguments):
        trainer = build(*arguments)
        trainers.append(trainer)
        loss = trainer._compute_loss

        def interrupted(model, inputs):
            if trainer.state.global_step == int(stop):
                raise RuntimeError("stopped by the test")
            return loss(model, inputs)

        trainer._compute_loss = interrupted
        return trainer

    train.build_trainer = building
    if dtype == "bfloat16":  # as on a GPU; on a CPU the library computes in float32
        models.compute_dtype = train.compute_dtype = lambda cpu, wanted="auto": (torch.bfloat16, "bfloat16: for a test")
    failed = train.main()
    (trainer,) = trainers
    parameters, engine = list(trainer.model.parameters()), trainer.model_wrapped
    if not failed and trainer.accelerator.is_main_process:
        found = {
            "type": trainer.accelerator.distributed_type.value,
            "frozen": sorted({str(p.dtype) for p in parameters if not p.requires_grad}),
        }
        if found["type"] == "DEEPSPEED":  # weights that this process holds Adam's states of
            own = sum(part.numel() for part in engine.optimizer.single_partition_of_fp32_groups)
            found |= {"share": own / sum(p.numel() for p in parameters if p.requires_grad)}
            found |= {"stage": engine.zero_optimization_stage(), "clipping": engine.gradient_clipping()}
        else:
            found |= {"share": sum(p.to_local().numel() for p in parameters) / sum(p.numel() for p in parameters)}
            found |= {"policy": str(trainer.accelerator.state.fsdp_plugin.mixed_precision_policy)}
        with open(report, "w", encoding="utf-8") as file:
            json.dump(found, file)
    return failed


if __name__ == "__main__":
    sys.exit(main(*[sys.argv.pop(1) for _ in range(3)]))
