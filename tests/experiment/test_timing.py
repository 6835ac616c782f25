"""Times in notebooks are those of the runs in results/."""

from mgrpo_lib.experiment import store, timing


def test_times_are_those_of_the_last_whole_run_else_of_its_trainings(tmp_path):
    seconds = {
        "03_grpo-seed1": 61,
        "03_grpo-seed2": 75,
        "03_grpo_matched-seed1": 80,
        "04_mgrpo-seed1": 9,
        "05_seed1": 3,
    }
    trained = {"grpo-seed0": {"arm": "grpo", "seconds": 154.8}, "mgrpo-seed0": {"arm": "mgrpo", "seconds": 299.0}}
    summary = {
        "environment": {"cpu_cores": 2, "gpu": None},
        "params": {"model": "miniature"},
        "runs": {"base": {"arm": "base", "seconds": 100.3}, **trained},
    }
    store.write_json(tmp_path / "cpu" / "timing.json", {"seconds": 561, "workers": 2, "steps": seconds})
    for profile in ("cpu", "smollm2"):
        store.write_json(tmp_path / profile / "summary.json", summary)
    table = timing.takes("03_grpo", tmp_path)
    assert table["time"]["cpu"].to_dict() == {"grpo": "1:01 to 1:15", "grpo_matched": "1:20"}
    assert table.loc[("cpu", "grpo"), "measured"] == "the notebook, 2 at a time on 2 CPU cores"
    assert table.loc[("smollm2", "grpo"), ["time", "measured"]].to_list() == ["2:34", "training alone, on 2 CPU cores"]
    assert set(table.index.levels[0]) == {"cpu", "smollm2"}, "nothing is said of what was not run"
    assert timing.takes("02_base_model", tmp_path).loc[("smollm2", "base"), "time"] == "1:40"
    assert timing.takes("04_mgrpo", tmp_path).loc[("smollm2", "mgrpo"), "time"] == "4:59"
    assert list(timing.takes("05_benchmarks", tmp_path).loc["cpu"].index) == ["each seed"]
    summary["environment"]["gpu"], summary["params"]["model"] = "H100", "own"
    store.write_json(tmp_path / "smollm2" / "summary.json", summary)
    assert timing.takes("03_grpo", tmp_path).loc[("smollm2", "grpo"), "measured"].endswith("on 2 CPU cores and H100")
    assert "5 notebooks, took 9:21 on 2" in timing.whole("cpu", tmp_path) and timing.whole("smollm2", tmp_path) == ""
