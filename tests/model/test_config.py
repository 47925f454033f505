import pytest

from tinystarcoder.errors import CheckpointError, UnsupportedArchitectureError
from tinystarcoder.model.config import PRESETS, ModelConfig


def test_tiny_has_the_published_number_of_parameters():
    assert PRESETS["tiny"].num_parameters() == 164_144_128


@pytest.mark.parametrize(
    ("name", "millions"), [("1b", 1137), ("3b", 3043), ("7b", 7327), ("15b", 15517)]
)
def test_the_relatives_have_the_sizes_of_their_names(name, millions):
    assert PRESETS[name].num_parameters() // 10**6 == millions


def test_nano_fits_its_place_in_the_package():
    assert PRESETS["nano"].num_parameters() <= 11_500_000


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_the_way_through_json(name):
    assert ModelConfig.from_dict(PRESETS[name].to_dict()) == PRESETS[name]


def test_a_missing_n_inner_is_four_widths():
    values = {**PRESETS["tiny"].to_dict(), "n_inner": None, "n_embd": 128, "n_head": 2}
    assert ModelConfig.from_dict(values).n_inner == 512


def test_numbers_and_nulls_as_other_programs_write_them():
    values = {**PRESETS["tiny"].to_dict(), "layer_norm_epsilon": 1, "bos_token_id": None}
    config = ModelConfig.from_dict({**values, "eos_token_id": None})
    assert (config.layer_norm_epsilon, config.bos_token_id, config.eos_token_id) == (1, 0, 0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model_type": "llama"}, UnsupportedArchitectureError, "model_type 'llama'"),
        ({"model_type": None}, UnsupportedArchitectureError, "model_type None"),
        ({"activation_function": "relu"}, UnsupportedArchitectureError, "'relu'"),
        ({"scale_attn_weights": False}, UnsupportedArchitectureError, "scale_attn_weights"),
        ({"n_head": 7}, CheckpointError, "not a multiple of n_head 7"),
        ({"n_layer": 0}, CheckpointError, "n_layer must be a positive integer, not 0"),
        ({"vocab_size": "many"}, CheckpointError, "vocab_size must be a positive integer"),
        ({"n_layer": 10**9}, CheckpointError, "n_layer 1000000000: no model has more than 4096"),
        ({"multi_query": "yes"}, CheckpointError, "multi_query"),
        *(
            ({"layer_norm_epsilon": value}, CheckpointError, "layer_norm_epsilon must be")
            for value in (None, 0, -1e-5, True, float("nan"), float("inf"))
        ),
    ],
)
def test_a_bad_config_is_one_error_that_names_the_field(change, error, words):
    with pytest.raises(error, match=words):
        ModelConfig.from_dict({**PRESETS["tiny"].to_dict(), **change})
