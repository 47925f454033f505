from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.training.schedule import lr_factor

SHAPES = st.sampled_from(["cosine", "linear", "wsd"])


@given(SHAPES, st.integers(1, 400), st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
def test_the_factor_stays_between_floor_and_one(shape, steps, warmup, floor, decay):
    for step in range(steps):
        factor = lr_factor(step, steps, shape=shape, warmup=warmup, floor=floor, decay=decay)
        assert 0 <= factor <= 1 + 1e-12
        if step >= warmup:
            assert factor >= floor - 1e-12


@given(SHAPES, st.integers(60, 400), st.integers(0, 50))
def test_it_rises_through_the_warm_up_and_never_after(shape, steps, warmup):
    factors = [lr_factor(s, steps, shape=shape, warmup=warmup) for s in range(steps)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


def test_wsd_is_flat_then_falls_in_a_line_to_zero():
    factors = [lr_factor(s, 101, shape="wsd", warmup=1, decay=0.5) for s in range(102)]
    assert set(factors[:51]) == {1.0}
    assert factors[76] == 0.5
    assert factors[101] == 0.0


def test_cosine_is_halfway_down_at_half_time():
    assert abs(lr_factor(50, 100, shape="cosine", warmup=0, floor=0.1) - 0.55) < 1e-12
