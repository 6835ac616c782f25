"""What the paper (arXiv 2506.04746) reports, as far as it is known, beside ours. Its full text could not be opened; every
number carries where it comes from.
"""

import pandas as pd

# Final accuracies of MGRPO in its Table 2: from the README of one third-party repository; MATH and GSM8K also from a
# public summary. The GRPO baseline is recalled from the paper's discussion and stands in no source we could read.
MGRPO_SOURCE = "second-hand"
GRPO_SOURCE = "recalled, in no source we could read"
TABLE_2 = {
    "MATH": {"grpo": 80.9, "mgrpo": 90.4},
    "GSM8K": {"grpo": 83.4, "mgrpo": 95.6},
    "Minerva Math": {"grpo": 35.1, "mgrpo": 39.3},
    "OlympiadBench": {"grpo": 39.9, "mgrpo": 50.4},
}
# The paper's columns, and our reading of them. What t1' means in the paper could not be established.
READING = {
    "t1": "first attempt of the GRPO baseline",
    "t1'": "first attempt of the MGRPO model",
    "t2": "second attempt of the MGRPO model",
}
PLAUSIBILITY = [
    "80.9 on MATH for the baseline is what others report for GRPO on this base model (80.0 on MATH-500 in arXiv 2503.20783); 90.4 is far "
    "above any single-pass reinforcement learning on it that we know of. That can be the second attempt's gain; it can "
    "also be another base model or another harness.",
    "The untrained base model is reported at 91.6 on GSM8K with few-shot prompts (Qwen2.5-Math report). A trained baseline at 83.4 "
    "would be below it; a template, a length limit or too little training of the baseline may explain that, and with it "
    "a part of the gain.",
    "From the size of the test sets alone, as unpaired proportions, the 95% intervals of the gains are: MATH-500 +9.5 [5.2, 13.8], GSM8K +12.2 "
    "[9.9, 14.5], OlympiadBench +10.5 [5.2, 15.8], Minerva Math (272 problems) +4.2 [-3.9, 12.3].",
    "With H corrections of each draft MGRPO samples up to G(1 + H) completions a question, GRPO samples G. Nothing that "
    "we read says that the baseline was given as many.",
]


def paper_table(rows: list[dict]) -> pd.DataFrame:
    """The view of the paper's Table 2: ours, then the paper's rows.

    Args:
        rows: ``arm, benchmark, acc_t1, acc_t2, i_to_c, c_to_i`` as fractions, as in ``summary.json``.

    Returns:
        In percent. A change from t1' is the correction itself; one from t1 mixes it with what training did to first
        attempts. Empty without the arms `mgrpo` and `grpo_matched`.
    """
    by_arm = {arm: {row["benchmark"]: row for row in rows if row["arm"] == arm} for arm in ("grpo_matched", "mgrpo")}
    table = []
    for benchmark, ours in by_arm["mgrpo"].items():
        if benchmark not in by_arm["grpo_matched"]:
            continue
        t1, t1_, t2 = (100 * x for x in (by_arm["grpo_matched"][benchmark]["acc_t1"], ours["acc_t1"], ours["acc_t2"]))
        table.append(
            {
                "benchmark": f"{benchmark} (ours)",
                "t1": f"{t1:.1f}",
                "t1'": f"{t1_:.1f}",
                "t2": f"{t2:.1f}",
                "t2 - t1": f"{t2 - t1:+.1f}",
                "t2 - t1'": f"{t2 - t1_:+.1f}",
                "wrong to right": f"{100 * ours['i_to_c']:.1f}",
                "right to wrong": f"{100 * ours['c_to_i']:.1f}",
                "status": "a miniature: says nothing of the paper's rows",
            }
        )
    for benchmark, known in TABLE_2.items():
        unknown = dict.fromkeys(("t1'", "t2 - t1'", "wrong to right", "right to wrong"), "not known")
        table.append(
            {
                "benchmark": f"{benchmark} (paper)",
                "t1": f"{known['grpo']} ({GRPO_SOURCE})",
                "t2": f"{known['mgrpo']} ({MGRPO_SOURCE})",
                "t2 - t1": f"{known['mgrpo'] - known['grpo']:+.1f} (as above)",
                **unknown,
                "status": "not comparable: not run here, neither the benchmark nor a 7B model",
            }
        )
    columns = (
        "benchmark",
        *READING,
        "t2 - t1",
        "t2 - t1'",
        "wrong to right",
        "right to wrong",
        "status",
    )
    return pd.DataFrame(table, columns=list(columns))
