import pytest
import torch

from tinystarcoder.model.config import ModelConfig
from tinystarcoder.model.gpt_bigcode import GPTBigCode
from tinystarcoder.training import optimizer
from tinystarcoder.training.distributed import World
from tinystarcoder.training.optimizer import (
    WeightAverage,
    build_optimizers,
    orthogonalize,
    set_lr,
)
from tinystarcoder.training.recipe import OptimizerRecipe

CONFIG = ModelConfig(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4, n_inner=64)
ALONE = World()


def test_orthogonalize_brings_singular_values_near_one():
    for shape in ((3, 64, 32), (3, 32, 64), (2, 32, 32)):
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalize(matrices).float())
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_orthogonalize_keeps_the_singular_vectors():
    matrix = torch.randn(1, 24, 24, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(matrix[0])
    aligned = torch.diagonal(u.t() @ orthogonalize(matrix)[0].float() @ vh.t())
    # Near-zero singular values are only partly raised; the rest come close to one.
    assert aligned[:20].min() > 0.5


def test_muon_takes_the_hidden_matrices_and_adamw_all_else():
    model = GPTBigCode(CONFIG)
    adamw, muon = build_optimizers(model, OptimizerRecipe(), ALONE)
    names = {parameter: name for name, parameter in model.named_parameters()}
    hidden = {names[p] for group in muon.param_groups for p in group["params"]}
    rest = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert hidden == {n for n, p in model.named_parameters() if ".h." in n and p.ndim == 2}
    assert rest == set(names.values()) - hidden


def test_adamw_alone_decays_matrices_and_nothing_else():
    model = GPTBigCode(CONFIG)
    (adamw,) = build_optimizers(model, OptimizerRecipe(kind="adamw", weight_decay=0.1), ALONE)
    decays = {p: group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert all(decays[p] == (0.1 if p.ndim > 1 else 0.0) for p in model.parameters())


def test_q_k_and_v_are_orthogonalized_apart():
    model = GPTBigCode(CONFIG)
    _, muon = build_optimizers(model, OptimizerRecipe(muon_weight_decay=0.0), ALONE)
    weight = model.transformer.h[0].attn.c_attn.weight
    before = weight.detach().clone()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    muon.step()
    update = (before - weight.detach()) / muon.param_groups[0]["lr"]
    for part in torch.split(update, [32, 8, 8]):
        values = torch.linalg.svdvals(part)
        assert values.min() > 0.1
        assert values.max() < 1.3


@pytest.mark.parametrize("native", [True, False])
def test_muon_computes_in_bfloat16_only_where_that_is_native(monkeypatch, native):
    """Emulated, its products took six times as long as all else of a step."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    seen = set()

    def watched(matrices):
        seen.add(matrices.dtype)
        return orthogonalize(matrices)

    monkeypatch.setattr(optimizer, "orthogonalize", watched)
    model = GPTBigCode(CONFIG)
    _, muon = build_optimizers(model, OptimizerRecipe(), ALONE)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    muon.step()
    assert seen == {torch.bfloat16 if native else torch.float32}


def test_set_lr_scales_every_group_by_its_own_peak():
    optimizers = build_optimizers(GPTBigCode(CONFIG), OptimizerRecipe(lr=0.5, muon_lr=0.25), ALONE)
    set_lr(optimizers, 0.5)
    assert [g["lr"] for o in optimizers for g in o.param_groups] == [0.25, 0.25, 0.125]


def test_the_average_follows_the_weights_and_changes_places_with_them():
    model = GPTBigCode(CONFIG)
    model.initialize(0, std=0.02)
    average = WeightAverage(model, 0.5)
    name, weight = "transformer.ln_f.weight", model.transformer.ln_f.weight
    with torch.no_grad():
        weight.fill_(3.0)
    average.update(step=100)
    assert average.tensors[name].mean() == 2.0  # From 1 half-way to 3.
    with average.in_place():
        assert weight.mean() == 2.0
        assert average.tensors[name].mean() == 3.0
    assert weight.mean() == 3.0


def test_the_average_forgets_the_first_weights_fast():
    model = GPTBigCode(CONFIG)
    average = WeightAverage(model, 0.999)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(5.0)
    average.update(step=0)
    wte = average.tensors["transformer.wte.weight"]
    assert (wte - 5.0).abs().max() < 1.0  # 0.1 of what was drawn, 0.9 of the weights.
