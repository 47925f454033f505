"""``tinystarcoder train``: runs a recipe, or goes on with a run that was stopped."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..errors import RecipeError, RequestError
from ..training.plan import DEVICES, GIB, Hardware, Memory, Plan, hardware, plan
from ..training.recipe import Recipe

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="TOML file, e.g. recipes/nano.toml.")],
    output: Annotated[
        Path | None, typer.Option(help="Run folder. [default: runs/NAME-OF-RECIPE]")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: schedule.steps=100."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Train nothing; say what it will take on --hardware.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            metavar="NxDEVICE",
            help=f"For --plan: 8xh100; {', '.join(DEVICES)}.  [default: h100]",
        ),
    ] = None,
) -> None:
    """Train a model by a recipe, or go on with the run in --output.

    SIGTERM or Ctrl-C ends a run after its step, with a checkpoint; the exit code is
    then 128 + the signal's number (143, 130).
    """
    if on is not None and not plan_only:
        raise RequestError(f"--hardware {on}: goes with --plan; a run takes what is there")
    overrides = dict(_pair(text) for text in override or [])
    chosen = Recipe.read(recipe, overrides)
    if plan_only:
        chosen_hardware = hardware(on or "h100")
        _print_plan(chosen.name, plan(chosen, chosen_hardware), chosen_hardware)
        return
    from ..training.trainer import Trainer  # Not before: a plan needs no torch.

    run = Trainer(chosen, output or Path("runs") / chosen.name)
    folder = run.run()
    if run.world.leads:
        typer.echo(folder)
    if run.stopped_by is not None:
        if run.progress.step < chosen.schedule.steps:
            typer.echo("stopped before the end; the same command goes on", err=True)
        raise typer.Exit(128 + run.stopped_by)


def _pair(text: str) -> tuple[str, str]:
    field, separator, value = text.partition("=")
    if not separator:
        raise RecipeError(f"--set {text}: expected FIELD=VALUE")
    return field, value


def _print_plan(name: str, made: Plan, on: Hardware) -> None:
    console = Console()
    unit = "core" if on.device.is_core else "rank"
    rate = made.tokens / made.seconds
    run = Table(title=f"{name} on {on.count} x {on.name}", show_header=False)
    for row in (
        ("parameters", f"{made.parameters:,}"),
        ("tokens", f"{made.tokens:,}"),
        ("FLOPs", f"{made.flops:.3g}"),
        ("tokens/s", f"{rate:,.0f} ({rate / on.count:,.0f} a {unit})"),
        ("time", _duration(made.seconds)),
    ):
        run.add_row(*row)
    console.print(run)
    steps = Table("steps", "context", "rows", "rows held by a rank", "tokens/s", "MFU", "time")
    for part in made.phases:
        phase, time = part.phase, _duration(part.steps * part.seconds_a_step)
        counts = (part.steps, phase.context, phase.rows, part.micro_rows)
        speed = (f"{part.tokens_per_second:,.0f}", f"{part.mfu:.0%}")
        steps.add_row(*(f"{count:,}" for count in counts), *speed, time)
    console.print(steps)
    sharded = [("FSDP", made.fsdp)] if on.ranks > 1 else []
    console.print(_memory_table([("DDP" if sharded else "one rank", made.ddp), *sharded], on))


def _memory_table(columns: list[tuple[str, Memory]], on: Hardware) -> Table:
    table = Table("memory of a rank, GiB", *(name for name, _ in columns))
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "total"):
        table.add_row(part, *(f"{getattr(memory, part) / GIB:,.2f}" for _, memory in columns))
    if limit := on.device.memory:
        fits = ("yes" if memory.total < limit else "no" for _, memory in columns)
        table.add_row(f"fits in {limit / GIB:.0f}", *fits)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"
