"""Parity with the reference implementation, on random weights in float32."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from tinystarcoder.errors import RequestError
from tinystarcoder.model import gpt_bigcode
from tinystarcoder.model.config import ACTIVATIONS, ModelConfig
from tinystarcoder.model.gpt_bigcode import GPTBigCode

SMALL = ModelConfig(
    vocab_size=300,
    n_positions=96,
    n_embd=48,
    n_layer=3,
    n_head=4,
    n_inner=100,
    attn_pdrop=0.0,
    embd_pdrop=0.0,
    resid_pdrop=0.0,
)
KINDS = [
    pytest.param(replace(SMALL, multi_query=mqa, activation_function=act), id=f"{name}-{act}")
    for mqa, name in ((True, "mqa"), (False, "mha"))
    for act in ACTIVATIONS
]


def pair(config: ModelConfig) -> tuple[GPTBigCode, GPTBigCodeForCausalLM]:
    """Our model and transformers', with the same weights, biases and norms random too."""
    reference = GPTBigCodeForCausalLM(GPTBigCodeConfig(**config.to_dict()))
    generator = torch.Generator().manual_seed(0)
    state = {k: v for k, v in reference.state_dict().items() if k != "lm_head.weight"}
    for value in state.values():
        value.normal_(0.0, 0.2, generator=generator)
    ours = GPTBigCode(config)
    ours.load_state_dict(state)
    return ours, reference


def some_ids(config: ModelConfig, rows: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, config.vocab_size, (rows, length), generator=generator)


@pytest.mark.parametrize("config", KINDS)
class TestParity:
    def test_logits_of_whole_sequences(self, config):
        ours, reference = pair(config)
        ids = some_ids(config, 2, 96)
        with torch.no_grad():
            difference = (ours.eval()(ids) - reference.eval()(ids).logits).abs().max()
        assert difference < 1e-4

    def test_logits_through_the_cache_in_uneven_steps(self, config):
        ours, reference = pair(config)
        ids = some_ids(config, 2, 40)
        cache = ours.new_cache(batch=2)
        with torch.no_grad():
            parts = [ours(part, cache) for part in ids.split([20, 7, *[1] * 13], dim=1)]
            difference = (torch.cat(parts, dim=1) - reference.eval()(ids).logits).abs().max()
        assert cache.length == 40
        assert difference < 1e-4

    def test_gradients(self, config):
        ours, reference = pair(config)
        ids = some_ids(config, 2, 64)
        reference.train()(ids, labels=ids).loss.backward()
        logits = ours.train()(ids)
        torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        ).backward()
        wanted = {n: p.grad for n, p in reference.named_parameters()}
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-4, rtol=1e-4)


def test_parameters_are_those_of_the_config():
    for config in (SMALL, replace(SMALL, multi_query=False)):
        model = GPTBigCode(config)
        assert {n: tuple(p.shape) for n, p in model.named_parameters()} == config.shapes()


def test_more_tokens_than_positions_is_one_clear_error():
    model = GPTBigCode(SMALL)
    with pytest.raises(RequestError, match="97 tokens do not fit in 96 positions"):
        model(some_ids(SMALL, 1, 97))
    with pytest.raises(RequestError, match="fit in 8 positions"):
        model(some_ids(SMALL, 1, 9), model.new_cache(capacity=8))


def test_initialize_depends_on_the_seed_alone():
    first, second, other = GPTBigCode(SMALL), GPTBigCode(SMALL), GPTBigCode(SMALL)
    first.initialize(3, std=0.02)
    second.initialize(3, std=0.02)
    other.initialize(4, std=0.02)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.transformer.wte.weight, other.transformer.wte.weight)


def test_rows_may_stand_at_later_positions():
    model = GPTBigCode(SMALL)
    model.initialize(0, std=0.02)
    ids = some_ids(SMALL, 2, 5)
    with torch.no_grad():
        shifted = model.eval().transformer(ids, first=SMALL.n_positions - 5)
        model.transformer.wpe.weight.copy_(model.transformer.wpe.weight.roll(5, 0))
        torch.testing.assert_close(model.transformer(ids), shifted)
    with pytest.raises(RequestError, match="do not fit"):
        model.transformer(ids, first=SMALL.n_positions - 4)


@pytest.mark.full
@pytest.mark.parametrize("multi_query", [True, False])
def test_parity_holds_at_8192_tokens(multi_query):
    config = replace(SMALL, n_positions=8192, multi_query=multi_query, n_layer=2)
    ours, reference = pair(config)
    ids = some_ids(config, 1, 8192)
    with torch.no_grad():
        difference = (ours.eval()(ids) - reference.eval()(ids).logits).abs().max()
    assert difference < 1e-4


DOCUMENTS = torch.tensor([[0] * 7 + [1] * 20 + [2] * 13, [0] * 40])


def test_a_document_mask_shows_each_place_its_own_document_up_to_itself():
    mask = gpt_bigcode.document_mask(DOCUMENTS)
    assert mask.shape == (2, 1, 40, 40)
    for row, documents in enumerate(DOCUMENTS.tolist()):
        for query in range(40):
            for key in range(40):
                sees = key <= query and documents[key] == documents[query]
                assert mask[row, 0, query, key] == sees


@pytest.mark.parametrize("multi_query", [True, False])
def test_flex_attention_sees_what_the_explicit_mask_shows(monkeypatch, multi_query):
    """The mask of a GPU, computed on a CPU without its compiler."""
    model = pair(replace(SMALL, multi_query=multi_query))[0].eval()
    ids = some_ids(SMALL, 2, 40)
    with torch.no_grad():
        dense = model.transformer(ids, documents=DOCUMENTS)
        monkeypatch.setattr(gpt_bigcode, "_compiled", lambda function: function)
        blocks = lambda documents: gpt_bigcode.block_mask(documents, create_block_mask)  # noqa: E731
        monkeypatch.setattr(gpt_bigcode, "document_mask", blocks)
        by_blocks = model.transformer(ids, documents=DOCUMENTS)
        across = model.transformer(ids)
    torch.testing.assert_close(by_blocks, dense, atol=1e-4, rtol=1e-4)
    assert (across - dense)[0].abs().max() > 0.1
    torch.testing.assert_close(across[1], dense[1], atol=1e-4, rtol=1e-4)


def test_recomputed_blocks_have_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = pair(SMALL)[0].train()
        for block in model.transformer.h:
            block.recompute = recompute
        model(some_ids(SMALL, 2, 30)).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *gradients))


def test_the_compilers_gelu_is_torchs():
    x = torch.linspace(-12, 12, 4001, requires_grad=True)
    for got, wanted in zip(
        *(
            (y, *torch.autograd.grad(y.sum(), x))
            for y in (gpt_bigcode._gelu_tanh(x), F.gelu(x, approximate="tanh"))
        ),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, atol=3e-6, rtol=1e-5)
