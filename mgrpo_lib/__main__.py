"""`python -m mgrpo_lib reproduce | figures | plan | doctor`: the chain, its tables and figures, what it would take on GPUs, and
what this machine can run.
"""

import argparse
import sys


def main() -> int:
    """The command line; 0 if all went well, 1 if a step failed, 2 if it was refused or nothing more can be written, 130 if
    it was stopped.
    """
    try:
        return run()
    except KeyboardInterrupt:
        print(
            "Stopped. Finished steps are kept, and trainings up to their last checkpoint; the same command goes on from there.",
            file=sys.stderr,
        )
        return 130


def run() -> int:
    parser = argparse.ArgumentParser(prog="python -m mgrpo_lib", description=__doc__)
    parser.add_argument(
        "command",
        choices=["reproduce", "figures", "plan", "doctor"],
        help="run what is missing of an experiment, redraw its tables and figures, estimate its memory, tokens and hours, or "
        "say what this machine can run and what to mend (with --out alone)",
    )
    parser.add_argument("--profile", default="auto", help="a file in profiles/; auto: by hardware")
    parser.add_argument("--out", default="", help="folder of results/ and figures/; default: the repository")
    parser.add_argument("--seeds", default="", help="training seeds, such as 0,1,2")
    parser.add_argument("--model", default="", help="a model's folder or hub id; default: the profile's")
    parser.add_argument("--params", default="", help="settings, such as 'learning_rate=2e-4 max_steps=50'")
    parser.add_argument("--workers", type=int, help="notebooks at a time; default: one for each core")
    arguments = parser.parse_args()
    if arguments.command == "doctor":
        if arguments != parser.parse_args(["doctor", "--out", arguments.out]):
            parser.error("doctor looks at all profiles; it takes --out alone")
        from mgrpo_lib.experiment.doctor import doctor

        return doctor(arguments.out)
    from mgrpo_lib.experiment.pipeline import configuration, reproduce
    from mgrpo_lib.experiment.settings import ConfigError, parse_assignments  # what the doctor does without

    where = {"seeds": arguments.seeds, "out": arguments.out}
    try:
        settings = parse_assignments(arguments.params) | ({"model": arguments.model} if arguments.model else {})
        if arguments.command == "reproduce":
            return reproduce(arguments.profile, settings, workers=arguments.workers, **where)
        cfg = configuration(arguments.profile, settings, **where)
        if arguments.command == "figures":
            if not cfg.arms:
                raise ConfigError(f"profile {cfg.profile} has no arms to compare; its records are in {cfg.results}")
            return redraw(cfg)
        from mgrpo_lib.experiment.plan import report  # counts parameters, with torch

        print(report(cfg))
        return 0
    except (ConfigError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def redraw(cfg) -> int:
    """Tables, figures and, for the reference run, README's results."""
    from mgrpo_lib.experiment import store
    from mgrpo_lib.report import figures, pages, rounds, summary  # matplotlib and pandas

    with store.only_one(cfg.results):
        summary.summarise(cfg)
        for path in figures.draw_all(cfg):
            print(path)
        if rounds.measured(cfg):
            rounds.summarise(cfg)
        if pages.is_reference(cfg) and pages.update_readme(cfg):
            print("README.md: results updated")
    print((cfg.results / "table.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
