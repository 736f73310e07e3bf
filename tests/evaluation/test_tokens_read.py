"""Tokens and seconds an expression, as an evaluation counts them."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from glus.evaluation.predict.inference import counting_tokens
from glus.evaluation.predict.worklist import Counted
from glus.evaluation.results.directions import direction


def test_tokens_of_each_pass_count_until_the_block_ends():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    with counting_tokens(llama) as count:
        llama.model(inputs_embeds=torch.zeros(3, 7, 16))
        llama.model(inputs_embeds=torch.zeros(1, 5, 16))
    llama.model(inputs_embeds=torch.zeros(2, 9, 16))
    assert count.tokens == 3 * 7 + 5


def test_costs_are_means_over_expressions_and_less_is_better():
    costs = Counted(frames=12, frames_without_seg=0, expressions=4, tokens=1000, seconds=6.0).costs()
    assert costs == {"eval/seconds_per_expression": 1.5, "eval/tokens_per_expression": 250.0}
    assert {direction(name) for name in costs} == {"lower"}


def test_an_evaluation_of_earlier_records_has_no_costs():
    assert Counted(frames=12, frames_without_seg=0).costs() == {}
