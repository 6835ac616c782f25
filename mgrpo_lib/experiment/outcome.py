"""What a finished pipeline tells: its table, whether its verdicts are the committed ones, and where everything is."""

from mgrpo_lib.experiment.progress import say
from mgrpo_lib.experiment.settings import ROOT, Config
from mgrpo_lib.experiment.store import read_json


def tell(cfg: Config) -> None:
    """Print the result table of an experiment, or the accuracies of a base model alone, and the folders."""
    if not cfg.arms:
        for name, both in read_json(cfg.results / "records" / "base.json")["accuracy"].items():
            say(f"{name}: {both['acc_t1']:.1%} right at attempt 1, {both['acc_t2']:.1%} at attempt 2")
        say(f"Everything is there, of the base model alone. Results: {cfg.results}")
        return
    table = cfg.results / ("dose.md" if cfg.bases else "table.md")
    print(table.read_text(encoding="utf-8"))
    if agreed := agreement(cfg):
        say(agreed)
    if cfg.profile == "smoke":
        say("Profile smoke shows that every step runs. Its numbers and verdicts mean nothing: a few steps, one seed.")
    say(f"Everything is there. Table: {table}\nFigures: {cfg.figures}. Notebooks as they ran: {cfg.results / 'runs'}")


def agreement(cfg: Config) -> str:
    """Say which verdicts of `ANALYSIS.md` are the committed ones; empty where there are none to compare."""
    files = [root / "results" / cfg.profile / "summary.json" for root in (cfg.output, ROOT)]
    if files[0] == files[1] or not files[1].exists():
        return ""
    here, there = (
        {f"{row['hypothesis']} on {row['benchmark']}": row["verdict"] for row in read_json(file)["hypotheses"]}
        for file in files
    )
    both = here.keys() & there.keys()
    other = [
        f"{name} ({here[name]}, committed {there[name]})" for name in here if name in both and here[name] != there[name]
    ]
    same = f"{len(both) - len(other)} of {len(both)} verdicts are the committed ones"
    return "; ".join([same, *other]) if both else ""
