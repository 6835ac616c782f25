"""What a GPU is for: which profiles are planned for it, and whether an experiment fits. Loads torch only to plan a language model."""

from mgrpo_lib.experiment import machine
from mgrpo_lib.experiment.progress import say
from mgrpo_lib.experiment.settings import Config, ConfigError, load_config

# GiB that each needs at least, the quickest first
GPU_PROFILES = {"colab": 14.5, "t4": 14.5, "a100": 39.0, "paper": 79.0}


def gpu_hint() -> str:
    """Name the quickest and the largest profile planned for this machine's GPU, in a line; empty without such a GPU."""
    name, memory = max(machine.gpus(), key=lambda gpu: gpu[1], default=("", 0.0))
    allowed = [profile for profile, least in GPU_PROFILES.items() if memory >= least]
    if not allowed:
        return ""
    quick, largest = allowed[0], allowed[-1]
    return (
        f'note: {name} ({memory:.0f} GiB) can train a language model: PROFILE={quick}, or profile = "{quick}" in a notebook, '
        f"planned for about an hour an arm on a T4; the largest that fits by plan is {largest}. First: make plan PROFILE={quick}"
    )


def offer(cfg: Config) -> None:
    """Say, in a notebook that trains the miniature, what this machine's GPU could train instead."""
    if cfg.is_miniature and (hint := gpu_hint()):
        say(hint)


def check_memory(cfg: Config) -> None:
    """Refuse an experiment that exceeds the smallest GPU's memory, or the machine's without one, and warn if it is close.

    Raises:
        ConfigError: says what to lower.
    """
    if cfg.is_miniature:
        return
    found = machine.gpus()
    if not found and cfg.model_content and cfg.model_content == load_config(cfg.source, arm="base").model_content:
        return  # a profile with its own small model was made on CPUs
    from mgrpo_lib.experiment import plan  # counts parameters, with torch

    name, memory = min(found, key=lambda gpu: gpu[1], default=("a machine without a GPU", machine.memory()[0]))
    where = f"{name} ({memory:.1f} GiB)"
    try:
        certain, likely = plan.fits(cfg, memory, reserve=False), plan.fits(cfg, memory)
    except (ValueError, KeyError, AttributeError) as error:  # a model whose sizes cannot be told
        say(f"note: memory is not planned: {error}")
        return
    if certain:
        raise ConfigError(f"profile {cfg.profile} on {where} {certain}; see make plan PROFILE={cfg.source}")
    if likely:
        say(f"note: memory may be short on {where}; if it is: {likely.removeprefix('does not fit: ')}")
    if not found:
        say(
            f"note: profile {cfg.profile} with {cfg.model}: without a GPU the hours that make plan counts can become days, and "
            "memory in float32 up to twice as much"
        )
