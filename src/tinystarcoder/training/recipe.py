"""A training run as one TOML file, read into typed tables. No torch: it is read to plan, too.

Every field has one place and one meaning; an unknown or impossible one is an
error that names it. Paths are relative to the recipe's own folder.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..errors import RecipeError, TinyStarcoderError
from ..model.config import PRESETS, ModelConfig
from .schedule import Shape, lr_factor


@dataclass(frozen=True)
class Range:
    """What a number of a recipe may be, both ends included."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        return (
            f"at least {self.least}" if self.most == math.inf else f"in {self.least}..{self.most}"
        )


Natural = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
# The sentinels of fill-in-the-middle must leave room in a row.
Context = Annotated[int, Range(16)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class ModelRecipe:
    """A preset, and how weights begin. ``overrides`` are fields of config.json.

    ``weights`` is a checkpoint's folder to begin from, of the same architecture;
    without one, weights are drawn.
    """

    preset: str = "nano"
    weights: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    init_std: NonNegative = 0.02
    dropout: Fraction = 0.0


@dataclass(frozen=True)
class Keep:
    """Documents whose ``package/path`` matches the pattern stay with this probability."""

    path: str
    probability: Fraction


@dataclass(frozen=True)
class Source:
    """One part of a mixture, and its share of the tokens beside the other parts' weights."""

    path: str
    weight: float


@dataclass(frozen=True)
class DataRecipe:
    """What is read: token shards (``corpus tokenize``), or a folder, wheel or sdist as it is.

    Either ``train`` or a ``mixture`` of several. An epoch has as many tokens as all
    sources together; of each it takes its share, some documents twice or not at all.
    ``package_tokens`` bounds what one package gives to an epoch (0: all of it):
    of a larger one, a random share of documents, anew in every epoch.
    ``quality_power`` p keeps a document with the probability quality ** p (0: all).
    ``line_rate`` is the share of middles that end with a line; the others end anywhere.
    ``metadata_rate`` is the chance that a name, a path, stars stand before a file. With
    ``document_mask`` attention stays within a document; positions go on in a row.
    ``shift_rate`` is the share of steps whose rows stand at positions from a random one on,
    not from the first: so rows shorter than the model's context leave no position behind
    (Kiyono et al. 2021, SHAPE).
    """

    tokenizer: str
    train: str = ""
    mixture: list[Source] = field(default_factory=list)
    validation: str = ""
    document_mask: bool = False
    shift_rate: Fraction = 0.0
    fim_rate: Fraction = 0.5
    spm_rate: Fraction = 0.5
    line_rate: Fraction = 0.0
    metadata_rate: Fraction = 0.0
    keep: list[Keep] = field(default_factory=list)
    package_tokens: Natural = 0
    quality_power: NonNegative = 0.0

    @property
    def sources(self) -> list[Source]:
        """What is read, as a mixture of at least one."""
        return self.mixture or [Source(self.train, 1.0)]


@dataclass(frozen=True)
class OptimizerRecipe:
    """AdamW for all, or Muon for the hidden matrices and AdamW for the rest.

    ``ema``: weights averaged with this decay a step are validated and exported (0: none).
    ``spike``: a step whose gradient norm is above so many times the median of the last
    ones is left out, the first of several (0: none is).
    """

    kind: Literal["muon", "adamw"] = "muon"
    lr: NonNegative = 6e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    epsilon: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    muon_lr: NonNegative = 0.02
    muon_momentum: Fraction = 0.95
    muon_weight_decay: NonNegative = 0.01
    clip: NonNegative = 1.0
    ema: Fraction = 0.0
    spike: NonNegative = 10.0


@dataclass(frozen=True)
class RewardRecipe:
    """Of texts that the model writes, those that are Python are made likelier than the others.

    ``weight`` of that loss beside cross-entropy (0: never), in one step of ``every``. Of each
    row at most so many ``prompts`` are cut, and after each are written ``samples`` texts of
    ``tokens``, drawn at ``temperature``: lower is nearer to greedy, and more alike.
    """

    weight: NonNegative = 0.0
    every: Positive = 1
    prompts: Positive = 8
    samples: Annotated[int, Range(2)] = 4
    tokens: Positive = 64
    temperature: Annotated[float, Range(0.01)] = 0.4


@dataclass(frozen=True)
class ScheduleRecipe:
    """Steps, and the learning rate over them."""

    steps: Positive
    shape: Shape = "wsd"
    warmup: Natural = 50
    floor: Fraction = 0.0
    decay: Fraction = 0.5

    def factor(self, step: int) -> float:
        """The factor of the peak rates for optimizer step ``step``, from 0."""
        return lr_factor(
            step,
            self.steps,
            shape=self.shape,
            warmup=self.warmup,
            floor=self.floor,
            decay=self.decay,
        )


@dataclass(frozen=True)
class Phase:
    """A stretch of the run, up to a share of its steps: rows a step and tokens a row."""

    until: Fraction
    context: Context
    rows: Positive
    micro_rows: Natural = 0  # rows that a rank holds in memory at once; 0: all of its share


@dataclass(frozen=True)
class ValidationRecipe:
    """Every so many steps (0: never), on at most so many tokens."""

    every: Natural = 0
    tokens: Positive = 50_000


@dataclass(frozen=True)
class CheckpointRecipe:
    """Every so many steps; only the newest ``keep`` stay, and what else is asked for.

    ``keep_best``: the one of the lowest validation loss, written when that is measured.
    ``milestones``: steps whose checkpoint is written and never removed, e.g. the last
    one before the rate falls, from where other lengths of the fall can be tried.
    """

    every: Positive = 200
    keep: Positive = 2
    keep_best: bool = False
    milestones: list[Positive] = field(default_factory=list)


@dataclass(frozen=True)
class HardwareRecipe:
    """``auto`` precision is bfloat16 where the processor has it natively.

    ``parallel`` says how several ranks (torchrun) share the work: each a whole model
    (ddp), or a shard of every parameter (fsdp); ``auto`` shards what is too large to
    copy. ``activation_checkpointing`` computes a block again rather than store it.
    """

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    activation_checkpointing: bool = False
    compile: bool = True
    threads: Natural = 0


@dataclass(frozen=True)
class Recipe:
    """One complete training run."""

    name: str
    data: DataRecipe
    schedule: ScheduleRecipe
    phases: list[Phase]
    seed: Natural = 0
    model: ModelRecipe = ModelRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    reward: RewardRecipe = RewardRecipe()
    validation: ValidationRecipe = ValidationRecipe()
    checkpoint: CheckpointRecipe = CheckpointRecipe()
    hardware: HardwareRecipe = HardwareRecipe()

    @classmethod
    def read(cls, path: Path, overrides: Mapping[str, str] | None = None) -> "Recipe":
        """Reads a TOML recipe; ``overrides`` maps dotted fields to TOML values.

        Raises RecipeError, which names the file and the field.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not a TOML file: {error}") from error
        try:
            for name, value in (overrides or {}).items():
                _override(values, name, value)
            recipe: Recipe = _build(cls, values, "")
            recipe._check()
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
        return recipe._resolved(path.parent)

    def model_config(self) -> ModelConfig:
        """The architecture to train."""
        dropout = self.model.dropout
        config = replace(PRESETS[self.model.preset], **self.model.overrides)
        return replace(config, attn_pdrop=dropout, embd_pdrop=dropout, resid_pdrop=dropout)

    def to_dict(self) -> dict[str, Any]:
        """Every field resolved, as a checkpoint records it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """What :meth:`to_dict` gave. Raises RecipeError for what cannot be one."""
        recipe: Recipe = _build(cls, dict(values), "")
        recipe._check()
        return recipe

    def phase_at(self, step: int) -> Phase:
        """The phase that optimizer step ``step`` (from 0) belongs to."""
        share = step / self.schedule.steps
        return next((phase for phase in self.phases if share < phase.until), self.phases[-1])

    def total_tokens(self) -> int:
        """Tokens that all steps take in, padding included."""
        phases = (self.phase_at(step) for step in range(self.schedule.steps))
        return sum(phase.rows * phase.context for phase in phases)

    def check_ranks(self, ranks: int) -> None:
        """Raises RecipeError where a step's rows do not spread evenly over ``ranks``."""
        for number, phase in enumerate(self.phases):
            if phase.rows % ranks:
                raise RecipeError(
                    f"phases[{number}].rows {phase.rows} do not spread over {ranks} ranks: "
                    f"choose a multiple of {ranks}"
                )

    def _check(self) -> None:
        """What no field's type says alone."""
        config = self._checked_config()
        if bool(self.data.train) == bool(self.data.mixture):
            raise RecipeError("data: give either train or mixture")
        for source in self.data.mixture:
            if not source.weight > 0:
                raise RecipeError(f"data.mixture {source.path!r}: weight must be above 0")
        for rule in self.data.keep:
            try:
                re.compile(rule.path)
            except re.error as error:
                raise RecipeError(
                    f"data.keep: {rule.path!r} is not a regular expression: {error}"
                ) from error
        if not self.phases:
            raise RecipeError("phases: at least one is needed")
        ends = [phase.until for phase in self.phases]
        if ends != sorted(ends) or ends[-1] != 1:
            raise RecipeError("phases: 'until' must rise, and end at 1")
        for number, phase in enumerate(self.phases):
            if phase.context > config.n_positions:
                raise RecipeError(
                    f"phases[{number}].context {phase.context} is more than the model's "
                    f"{config.n_positions} positions"
                )

    def _checked_config(self) -> ModelConfig:
        if self.model.preset not in PRESETS:
            raise RecipeError(f"model.preset {self.model.preset!r} is none of {list(PRESETS)}")
        try:
            return self.model_config()
        except (TypeError, TinyStarcoderError) as error:
            raise RecipeError(f"model.overrides: {error}") from error

    def _resolved(self, folder: Path) -> "Recipe":
        def resolve(path: str) -> str:
            return str((folder / Path(path).expanduser()).resolve()) if path else ""

        data = replace(
            self.data,
            train=resolve(self.data.train),
            mixture=[replace(part, path=resolve(part.path)) for part in self.data.mixture],
            tokenizer=resolve(self.data.tokenizer),
            validation=resolve(self.data.validation),
        )
        model = replace(self.model, weights=resolve(self.model.weights))
        return replace(self, data=data, model=model)


def _override(values: dict[str, Any], name: str, text: str) -> None:
    """Sets a dotted field; the text is a TOML value, or else a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, leaf = name.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{name}: {table} is not a table")
    values[leaf] = value


def _build(cls: Any, values: Any, where: str) -> Any:
    """A dataclass from a parsed table, every type and range checked."""
    if not isinstance(values, dict):
        raise RecipeError(f"{where} must be a table")
    hints = get_type_hints(cls, include_extras=True)
    prefix = f"{where}." if where else ""
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise RecipeError(f"unknown field {prefix}{unknown[0]}; known are {', '.join(hints)}")
    for f in fields(cls):
        required = f.default is MISSING and f.default_factory is MISSING
        if required and f.name not in values:
            raise RecipeError(f"{prefix}{f.name} is missing")
    return cls(**{k: _convert(hints[k], v, prefix + k) for k, v in values.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number, limits = _convert(args[0], value, where), args[1]
        if not limits.least <= number <= limits.most:
            raise RecipeError(f"{where} must be {limits}, not {number}")
        return number
    if origin is Literal:
        if value not in args:
            raise RecipeError(f"{where} must be one of {', '.join(args)}, not {value!r}")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list")
        return [_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or kind
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise RecipeError(f"{where} must be of type {expected.__name__}, not {value!r}")
    return value
