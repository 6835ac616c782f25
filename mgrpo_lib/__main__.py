"""`python -m mgrpo_lib COMMAND`: run the pipeline, redraw its tables and figures, try a base model, estimate memory and time, or check
this machine.
"""

import argparse
import sys

STOPPED = "Stopped. Finished steps are kept, and trainings up to their last checkpoint; the same command continues from there."


def main() -> int:
    """Run the command line; 0 on success, 1 after a failed step, 2 if refused or nothing more can be written, 130 if stopped."""
    parser = argparse.ArgumentParser(prog="python -m mgrpo_lib", description=__doc__)
    commands = {
        "reproduce": "run what is missing of an experiment",
        "figures": "redraw its tables and figures",
        "preflight": "sample drafts and corrections of the base model: is there anything to amplify?",
        "plan": "estimate whether it fits this machine's GPU, its tokens and hours",
        "doctor": "check what this machine can run, and how to fix what it cannot (takes --out alone)",
    }
    described = "; ".join(f"{name}: {what}" for name, what in commands.items())
    parser.add_argument("command", choices=commands, help=described)
    parser.add_argument(
        "--profile",
        default="auto",
        help="a name in profiles/, or a .yaml file of your own; auto: cpu, or own with --model",
    )
    place = "folder of results/ and figures/, counted from the repository; default: out, and for figures the repository"
    parser.add_argument("--out", default="", help=place)
    parser.add_argument("--seeds", default="", help="training seeds, such as 0,1,2")
    parser.add_argument("--model", default="", help="a model's folder or hub id; default: the profile's")
    parser.add_argument("--set", nargs="*", default=[], help="settings, such as learning_rate=2e-4 max_steps=50")
    parser.add_argument("--data", default="", help="preflight: set or file of problems; default: the training set")
    parser.add_argument("--problems", type=int, help="preflight: problems at most; default: 64")
    parser.add_argument("--workers", type=int, help="notebooks at a time; default: one per core")
    parser.add_argument(
        "--details", action="store_true", help="plan: parameters, tokens, disk; memory and hours of each arm"
    )
    given = parser.parse_args()
    if given.command == "doctor":
        if given != parser.parse_args(["doctor", "--out", given.out]):
            parser.error("doctor checks all profiles; it takes --out alone")
        from mgrpo_lib.experiment.doctor import doctor  # works without the packages that the others need

        return doctor(given.out)
    try:
        from mgrpo_lib.experiment.settings import ConfigError
    except ModuleNotFoundError as error:
        from mgrpo_lib.experiment.doctor import INSTALL

        print(f"error: {error}, in {sys.executable}. Fix: .venv/bin/python -m mgrpo_lib; or {INSTALL}", file=sys.stderr)
        return 2
    try:
        return run(given)
    except (ConfigError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def run(given: argparse.Namespace) -> int:
    """Run one of the commands that need settings."""
    from mgrpo_lib.experiment import pipeline
    from mgrpo_lib.experiment.assignments import parse_assignments
    from mgrpo_lib.experiment.settings import ConfigError

    if given.command != "preflight" and (given.data or given.problems is not None):
        to_train = "to train and test on files: PARAMS='train_data=problems.jsonl benchmarks=[test.jsonl]'"
        raise ConfigError(
            f"DATA and PROBLEMS (--data, --problems) are of preflight, not of {given.command}; {to_train}"
        )
    settings = parse_assignments(given.set) | ({"model": given.model} if given.model else {})
    if given.command == "reproduce":
        return pipeline.reproduce(given.profile, settings, given.seeds, given.out, given.workers)
    if given.command == "preflight":
        return preflight(given, settings)
    redrawn = given.command == "figures"
    cfg = pipeline.configuration(given.profile, settings, given.seeds, given.out or ("." if redrawn else ""))
    if redrawn:
        return redraw(cfg)
    from mgrpo_lib.experiment import machine, plan  # counts parameters, with torch

    print(plan.report(cfg, machine.gpus(), given.details))
    return 0


def preflight(given: argparse.Namespace, settings: dict) -> int:
    """Sample a base model, and write and print what it can do, and what the profile as it stands would cost."""
    from mgrpo_lib.experiment import machine, pipeline, plan, store
    from mgrpo_lib.experiment.settings import GENERATORS, ConfigError
    from mgrpo_lib.tasks.benchmarks import TRAINING_SETS

    count = 64 if given.problems is None else given.problems
    if count < 2:
        raise ConfigError(f"PROBLEMS={count}: give 2 or more, better 64")
    trained_on = given.data in (*TRAINING_SETS, *GENERATORS)  # only tried here: no file is too small to train on
    data = {"train_data": given.data} if trained_on else {"benchmarks": [given.data]} if given.data else {}
    cfg = pipeline.configuration(given.profile, settings | data, out=given.out)
    trained = pipeline.configuration(given.profile, {"model": given.model} if given.model else {}, out=given.out)
    name = next(iter(cfg.files), given.data) or cfg.train_data
    name = "blanks" if name == "miniature" else name
    pipeline.check_prompts(cfg, pipeline.check_data(cfg))
    from mgrpo_lib.experiment import base, preflight
    from mgrpo_lib.report import pages

    with store.only_one(cfg.results):
        base.train_base(cfg, hub=False)
        records = preflight.preflight(cfg, name, count)
        page = pages.write_preflight(cfg, name, records, plan.verdict(trained, machine.gpus()))
    print(page.read_text(encoding="utf-8"), page, sep="\n")
    return 0


def redraw(cfg) -> int:
    """Redraw tables, figures and, for a committed experiment, the pages that show it."""
    from mgrpo_lib.experiment import store
    from mgrpo_lib.report import (  # matplotlib and pandas
        dose,
        figures,
        forecast,
        pages,
        preflight,
        rounds,
        summary,
        tables,
    )

    with store.only_one(cfg.results):
        if not cfg.arms:  # a base model alone, compared with its controls
            table = tables.markdown(preflight.greedy_table(preflight.summarise(cfg)))
        elif cfg.bases:
            dose.summarise(cfg)
            table = (cfg.results / "dose.md").read_text(encoding="utf-8")
        else:
            summary.summarise(cfg)
            print(*figures.draw_all(cfg), sep="\n")
            if rounds.measured(cfg):
                rounds.summarise(cfg)
            table = (cfg.results / "table.md").read_text(encoding="utf-8")
        if pages.is_reference(cfg):
            if cfg.bases:
                print(forecast.draw())
            for page in pages.update():
                print(f"{page}: results updated")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
