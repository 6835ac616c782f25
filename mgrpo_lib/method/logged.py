"""Every number that a training logs, with its meaning. No torch.

What `LAYER` names is logged for each layer: plain for layer 1, with the prefix ``layer2/`` (``layer3/`` ...) for a later one.
"""

RUN = {
    "step": "optimizer step",
    "loss": "sum of the layers' losses; near 0 by construction, since advantages are centred",
    "grad_norm": "norm of the joint gradient before clipping",
    "generated_tokens": "tokens sampled since the start, all layers",
    "num_tokens": "tokens sampled or read as prompt since the start, all layers",
    "step_time": "seconds",
}
# Accuracy and shares leave out fillers: rows that a process samples only because another one has more drafts to correct
LAYER = {
    "tokens": "tokens that the layer sampled in this step",
    "accuracy": "share of the layer's completions that are right",
    "answered": "share of the layer's completions in which an answer was found; rows that only fill a batch are counted",
    "reward": "mean reward of the layer's completions",
    "reward_std": "its standard deviation",
    "frac_reward_zero_std": "share of groups whose rewards are all equal: no signal",
    "entropy": "mean entropy of the policy's next-token distribution; in a joint step of the rows that move it",
    "kl": "mean k3 estimate of the divergence from the base model",
    "completions/mean_length": "tokens of a completion",
    "completions/clipped_ratio": "share of completions cut off at the length limit",
    "clip_ratio/region_mean": "share of tokens whose ratio was clipped",
}
CORRECTIONS = {
    "fixed": "share of corrections that turned a wrong draft right",
    "broken": "share of corrections that turned a right draft wrong",
    "kept": "share of corrections that left a right draft right",
    "copied": "share of corrections that repeat the draft token for token",
    "answer_changed": "share of corrections whose final answer is not the draft's",
    "edit_distance": "insertions, deletions and replacements between draft and correction, as a share of the longer one",
    "used": "share of corrections that are trained on",
}
METRICS = RUN | LAYER | CORRECTIONS  # what an experiment keeps, in metrics.jsonl

# TRL's and transformers' own, beside these
RUN_BESIDE = {
    "learning_rate": "of this step",
    "epoch": "passes over the training problems",
}
LAYER_BESIDE = {
    "rewards/NAME/mean": "mean of the reward function NAME, before the functions are added up",
    "rewards/NAME/std": "its standard deviation",
    "completions/min_length": "tokens of the shortest completion",
    "completions/max_length": "tokens of the longest completion",
    "completions/mean_terminated_length": "tokens of a completion that ended by itself",
    "completions/min_terminated_length": "tokens of the shortest one that ended by itself",
    "completions/max_terminated_length": "tokens of the longest one that ended by itself",
    "clip_ratio/low_mean": "share of tokens clipped because their probability fell",
    "clip_ratio/low_min": "the smallest such share in a micro-batch",
    "clip_ratio/high_mean": "share of tokens clipped because their probability rose",
    "clip_ratio/high_max": "the largest such share in a micro-batch",
}
BESIDE = RUN_BESIDE | LAYER_BESIDE
