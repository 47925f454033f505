import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder import load
from tinystarcoder.fim import prompt
from tinystarcoder.generation.healing import Healing, take_back


@given(st.text(max_size=40))
def test_what_is_taken_back_and_what_stays_are_the_prompt(tokenizer, text):
    ids = tokenizer.encode(text)
    kept, beginning = take_back(tokenizer, ids)
    assert tokenizer.decode(kept, skip_special=True) + beginning == tokenizer.decode(ids)
    assert kept == (ids[:-1] or [tokenizer.eos_id] if beginning else ids)


def test_sentinels_special_tokens_and_half_characters_stay_whole(tokenizer):
    half = tokenizer.encode("\U0001f9ff")[:1]
    psm, empty = (prompt(p, [41], tokenizer.fim, o) for p, o in (([40], "psm"), ([], "spm")))
    for ids in ([], psm, empty, [40, tokenizer.eos_id], half):
        assert take_back(tokenizer, ids) == (ids, "")


def test_a_prefix_before_a_hole_is_healed_in_spm_order(tokenizer, tiny_checkpoint):
    ids = prompt(tokenizer.encode("x = 1\n"), [41], tokenizer.fim, "spm")
    assert take_back(tokenizer, ids) == (ids[:-1], tokenizer.decode(ids[-1:]))
    model = load(tiny_checkpoint)
    done = model.infill("def f():\n", "\n    return x\n", order="spm", max_tokens=12)
    written = tokenizer.decode([t.id for t in done.tokens], skip_special=True)
    assert written == "\n" + done.text
    done = model.infill("def f():\n", "\n    return x\n", order="psm", max_tokens=12)
    assert tokenizer.decode([t.id for t in done.tokens], skip_special=True) == done.text


def test_only_tokens_that_spell_the_beginning_are_allowed(tokenizer):
    healing = Healing(tokenizer, "\n  ")
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    allowed = np.flatnonzero(np.isfinite(healing.mask(logits)))
    spelled = [tokenizer.token_bytes(token) for token in allowed]
    assert spelled
    assert all(s and (s.startswith(b"\n  ") or b"\n  ".startswith(s)) for s in spelled)
    healing.accept(tokenizer.encode("\n")[0])
    spelled = {tokenizer.token_bytes(t) for t in np.flatnonzero(np.isfinite(healing.mask(logits)))}
    assert b" " in spelled
    assert not any(s.startswith(b"\n") for s in spelled)
    healing.accept(tokenizer.encode("    ")[0])
    assert healing.mask(logits) is logits


def test_ids_beyond_the_tokenizer_may_follow(tokenizer):
    healing = Healing(tokenizer, "x")
    healing.accept(tokenizer.encode("x")[0])
    healing.accept(tokenizer.vocab_size + 5)
    logits = np.zeros(tokenizer.vocab_size + 9, np.float32)
    assert healing.mask(logits) is logits


@pytest.mark.parametrize("text", ["def f():\n", "x = 12", "print('h", "class A:\n    "])
def test_a_completion_goes_on_where_the_prompt_ends(tiny_checkpoint, text):
    """Streamed or whole, it never shows again what was taken back."""
    model = load(tiny_checkpoint)
    ids, beginning = take_back(model.tokenizer, model.tokenizer.encode(text, special=True))
    done = model.complete(text, max_tokens=12)
    written = model.tokenizer.decode([t.id for t in done.tokens], skip_special=True)
    assert written.startswith(beginning)
    assert written.removeprefix(beginning).startswith(done.text)
    assert "".join(model.stream(text, max_tokens=12)) == done.text
    assert len(ids) == len(model.tokenizer.encode(text)) - 1
