"""vLLM in server mode: TRL's own client code, against a stand-in for the server that holds and samples a model of its own."""

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from trl.generation import vllm_generation


class Server:
    """What TRL's `VLLMClient` offers, without vLLM: it takes weights, and samples n completions a prompt with their log-probabilities."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.calls, self.synchronised = [], 0

    def init_communicator(self, device):
        with torch.no_grad():  # nothing is sampled from these
            for parameter in self.model.parameters():
                parameter.fill_(torch.nan)

    def get_server_info(self):
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def update_named_params(self, metadata, parameters):
        weights = {name: parameter.detach().clone() for name, parameter in parameters}
        assert [name for name, _, _ in metadata] == list(weights)
        self.model.load_state_dict(weights, strict=True)
        self.synchronised += 1

    def reset_prefix_cache(self):
        pass

    def generate(self, prompts, n, temperature, max_tokens, features=None, **sampling):
        self.calls.append((prompts, n))
        sampled = {"prompt_ids": prompts, "completion_ids": [], "logprobs": []}
        for ids in prompts:
            rows = torch.tensor([ids] * n)
            out = self.model.generate(
                rows, attention_mask=torch.ones_like(rows), do_sample=True, top_k=0, temperature=temperature, eos_token_id=1,
                pad_token_id=0, max_new_tokens=max_tokens, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            scores = torch.stack(out.logits, 1).log_softmax(-1)
            for row, numbers in zip(out.sequences[:, len(ids) :].tolist(), scores, strict=True):
                length = row.index(1) + 1 if 1 in row else len(row)
                sampled["completion_ids"].append(row[:length])
                sampled["logprobs"].append([[numbers[t, row[t]].item()] for t in range(length)])
        return sampled


@pytest.mark.parametrize("lora", [False, True])
def test_both_layers_are_sampled_by_the_server_with_the_present_weights(lora, make, folder, monkeypatch):
    server = Server(folder)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "VLLMClient", lambda **_: server)
    trainer = make(tiny.Recording, num_corrections=3, max_steps=2, use_vllm=True, vllm_mode="server", lora=lora)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    assert server.synchronised == 2, "once a step, for both layers"
    assert [n for _, n in server.calls] == [4, 3] * 2, "G drafts, then H corrections"
    drafts, corrections = trainer.layers[1], trainer.layers[2]
    assert server.calls[-2][0] == drafts.prompt_ids[::4]
    assert server.calls[-1][0] == corrections.prompt_ids[::3]
    for parent, ids in zip(corrections.parents, corrections.prompt_ids, strict=True):
        written = [token for token in drafts.completion_ids[parent] if token != 1]  # without the end of the turn
        read = drafts.prompt_ids[parent] + written
        assert ids[: len(read)] == read, "the draft's own tokens"
    for layer in ("", "layer2/"):  # the server's log-probabilities are the trainer's: the ratio of both is 1
        logged = [row for row in trainer.state.log_history if "loss" in row]
        for row in logged:
            assert row[f"{layer}sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3)
    assert any(not torch.equal(p, before[name]) for name, p in trainer.model.named_parameters() if name in before)
