"""``load(name) -> Model``: the one place where checkpoint, tokenizer and decoder meet.

A name is, in this order: a bundled model (``nano``), a folder, a hub id
(``owner/name``). A folder that has a bundled model's name is written ``./nano``.
A model is one thread's: it gives up locks, which its callers place better.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TypedDict, Unpack, get_args

from . import fim, hub
from .engine.decoder import Decoder
from .engine.native_decoder import HOW_TO_BUILD, NativeDecoder, is_built
from .engine.numpy_decoder import NumpyDecoder
from .engine.packed_weights import DEFAULT_PRECISION, Precision
from .errors import ModelNotFoundError, RequestError, TokenizerError
from .generation.generate import (
    Completion,
    fit_prompt,
    new_slot,
    sample_texts,
    stream_text,
)
from .generation.healing import take_back
from .generation.sampling import SamplingOptions
from .generation.sequence import room_for_prompt
from .generation.speculative import DraftModel, NewDrafter, PromptLookup
from .model.checkpoint import Checkpoint
from .model.config import ModelConfig
from .tokenizer import Tokenizer

BUNDLED = "nano"


class Options(TypedDict, total=False):
    """The fields of :class:`~.generation.sampling.SamplingOptions`, as keywords."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: Sequence[str]
    top_logprobs: int


class Model:
    """A loaded model: text in, text out. One thread at a time.

    Options are the fields of :class:`~.generation.sampling.SamplingOptions`;
    by default greedy, 64 tokens. A prompt beyond the context is cut with a warning.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, new_drafter: NewDrafter | None = None
    ) -> None:
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.new_drafter = new_drafter

    @property
    def config(self) -> ModelConfig:
        """The architecture's numbers, under the names of ``config.json``."""
        return self.decoder.config

    def draft_by(self, other: "Model") -> None:
        """Lets a smaller model guess, see :mod:`~.generation.speculative`.

        From then on the other belongs to this model's thread. Raises
        TokenizerError where the two vocabularies differ.
        """
        same_ids = other.tokenizer.vocabulary == self.tokenizer.vocabulary
        if not same_ids or other.config.vocab_size != self.config.vocab_size:
            raise TokenizerError(
                "the draft model's vocabulary is not the model's: its guesses would mean other "
                "text; use a smaller model of the same family"
            )
        self.new_drafter = partial(DraftModel, other.decoder)

    def complete(self, prompt: str, **options: Unpack[Options]) -> Completion:
        """The continuation of a raw prompt, in which special tokens are parsed."""
        return self.samples(prompt, 1, **options)[0]

    def samples(self, prompt: str, number: int, **options: Unpack[Options]) -> list[Completion]:
        """``number`` continuations of one prompt, which is computed once."""
        chosen = SamplingOptions(**options)
        ids, beginning = self._prompt(prompt, chosen)
        return self._samples(ids, chosen, number, beginning)

    def stream(self, prompt: str, **options: Unpack[Options]) -> Iterator[str]:
        """The text of :meth:`complete`, piece by piece as it comes."""
        chosen = SamplingOptions(**options)
        return self._stream(*self._prompt(prompt, chosen), chosen)

    def infill(
        self, prefix: str, suffix: str, *, order: fim.Order = "spm", **options: Unpack[Options]
    ) -> Completion:
        """What belongs between two plain texts.

        In SPM order by default, in which nano fills better (docs/log.md).

        Texts beyond the context are cut away from the hole, 3 tokens of the
        prefix kept for each of the suffix. Its lines end as the texts' do. Raises
        RequestError for a model that was not trained to infill.
        """
        chosen = SamplingOptions(**options)
        ids = self.infill_ids(prefix, suffix, chosen.max_tokens, order)
        ids, beginning = take_back(self.tokenizer, ids)
        made = self._samples(ids, chosen, 1, beginning)[0]
        return replace(made, text=made.text.replace("\n", fim.line_break(prefix, suffix)))

    def infill_ids(
        self, prefix: str, suffix: str, max_tokens: int, order: fim.Order = "spm"
    ) -> list[int]:
        """The prompt of :meth:`infill`, before healing; it raises what that raises."""
        if order not in get_args(fim.Order):
            raise RequestError(f"order {order!r}: must be one of {', '.join(get_args(fim.Order))}")
        tokens = self.tokenizer.fim
        if tokens is None:
            raise RequestError("this model cannot infill: its vocabulary has no FIM tokens")
        before, after = map(self.tokenizer.encode, map(fim.with_lf, (prefix, suffix)))
        room = room_for_prompt(self.config, max_tokens) - fim.SENTINELS
        before, after = fit_around(before, after, room)
        return fim.prompt(before, after, tokens, order)

    def _samples(
        self, ids: list[int], options: SamplingOptions, number: int, beginning: str = ""
    ) -> list[Completion]:
        return sample_texts(
            self.decoder,
            self.tokenizer,
            ids,
            options,
            number,
            beginning=beginning,
            new_drafter=self.new_drafter,
        )

    def _prompt(self, prompt: str, options: SamplingOptions) -> tuple[list[int], str]:
        """The ids that fit, and the text of the last token, which is written again."""
        ids = self.tokenizer.encode(prompt, special=True)
        return take_back(self.tokenizer, fit_prompt(ids, self.config, options.max_tokens))

    def _stream(self, ids: list[int], beginning: str, options: SamplingOptions) -> Iterator[str]:
        with new_slot(self.decoder) as slot:
            for piece in stream_text(
                self.decoder,
                slot,
                self.tokenizer,
                ids,
                options,
                beginning=beginning,
                new_drafter=self.new_drafter,
            ):
                if piece.text:
                    yield piece.text


def fit_around(before: list[int], after: list[int], room: int) -> tuple[list[int], list[int]]:
    """Prefix and suffix cut to ``room`` ids together, the far ends first, with a warning.

    Three quarters are the prefix's; what one side does not use, the other may.
    """
    excess = len(before) + len(after) - room
    if excess <= 0:
        return before, after
    if room < 0:
        raise RequestError("max_tokens leaves no room for a prompt in this model's context")
    kept_after = min(len(after), max(room // 4, room - len(before)))
    kept_before = room - kept_after
    warnings.warn(
        f"prefix and suffix were cut to {kept_before} and {kept_after} tokens: "
        f"{excess} too many for the context",
        stacklevel=3,
    )
    return before[len(before) - kept_before :], after[:kept_after]


def load(
    name: str | Path | None = None,
    *,
    precision: Precision | None = None,
    threads: int | None = None,
    draft: str | Path | None = None,
    prompt_lookup: bool = True,
) -> Model:
    """Loads the bundled model (by default), a folder's or the hub's.

    ``precision`` is that of the weights in memory, by default int8; ``threads``
    by default the physical cores. Where the native engine is not built, numpy
    computes in float32, with a warning.

    The text is the same, only sooner there, by guesses that the model checks:
    those of a smaller model, ``draft``, or else, with ``prompt_lookup``, what
    followed the same words before.

    Raises ModelNotFoundError, CheckpointError or TokenizerError, which name
    the file, and the tensor if it is one; RequestError for an option out of range.
    """
    model = _load(locate(name), precision, threads)
    if draft is not None:
        model.draft_by(_load(locate(draft), precision, threads))
    elif prompt_lookup:
        model.new_drafter = PromptLookup
    return model


def _load(folder: Path, precision: Precision | None, threads: int | None) -> Model:
    checkpoint, tokenizer = Checkpoint.open(folder), Tokenizer.from_folder(folder)
    if tokenizer.vocab_size > checkpoint.config.vocab_size:
        raise TokenizerError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids, the model's vocab_size "
            f"(config.json) is {checkpoint.config.vocab_size}: they are not of one model"
        )
    return Model(new_decoder(checkpoint, precision, threads), tokenizer)


def new_decoder(
    checkpoint: Checkpoint, precision: Precision | None = None, threads: int | None = None
) -> Decoder:
    """The fastest decoder that this installation has for a checkpoint; see :func:`load`."""
    if is_built():
        return NativeDecoder(checkpoint, precision or DEFAULT_PRECISION, threads)
    if precision not in (None, "fp32"):
        raise RequestError(f"precision {precision}: {HOW_TO_BUILD}")
    warnings.warn(HOW_TO_BUILD, stacklevel=3)
    return NumpyDecoder(checkpoint)


def locate(name: str | Path | None = None) -> Path:
    """The folder of a model: bundled, given, or fetched into the hub's cache.

    Raises ModelNotFoundError where there is none.
    """
    if name is None or name == BUNDLED:
        return _bundled()
    if not name:  # Path would take it for the folder that the user is in.
        raise ModelNotFoundError(
            f"the model's name is empty: give {BUNDLED}, a folder or a hub id (owner/name)"
        )
    path = Path(name)
    with suppress(RuntimeError):  # There is no user of that name: it may be a folder's.
        path = path.expanduser()
    # A file too: opening it says what is wrong with it.
    if path.exists():
        return path
    if isinstance(name, str) and hub.is_id(name):
        return hub.fetch(name)
    raise ModelNotFoundError(
        f"{name}: no such folder, and neither a bundled model ({BUNDLED}) nor a hub id (owner/name)"
    )


def _bundled() -> Path:
    folder = Path(str(resources.files(__package__) / "weights" / BUNDLED))
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"{folder}: this installation holds no bundled model {BUNDLED}; name a folder"
        )
    return folder
