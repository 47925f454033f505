"""One command for all of it: python -m benchmarks.keystroke [MEASURE …] WHEELS --output NAME.

Runs the named measures, or all. What an earlier run wrote under the same name
stays, but for the measures that are run again.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine.report import write

from . import load, replay
from .bench import Bench
from .report import as_json, markdown

HERE = Path(__file__).resolve().parents[1]
MEASURES: dict[str, Callable[[Bench], None]] = {
    "nano": replay.nano,
    "replay": replay.replay,
    "load": load.load,
    "leave": load.leave,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keystroke", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument(
        "--wheels",
        type=Path,
        default=HERE.parent / ".validation",
        help="a folder of held-out packages; scripts/validation-packages makes it",
    )
    parser.add_argument(
        "--peers", type=Path, default=HERE / "peers.d", help="made by benchmarks/peers"
    )
    parser.add_argument(
        "--models", type=Path, help="where the models lie; by default under --peers"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--keys", type=int, default=16, help="typed in a session")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--leaving", type=int, default=1000, help="clients that go away")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "keystroke")
    settings = vars(parser.parse_args())
    chosen, home, output = (settings.pop(name) for name in ("measures", "peers", "output"))
    if unknown := set(chosen) - set(MEASURES):
        parser.error(f"no such measure: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    wheels = sorted(settings.pop("wheels").glob("*.whl"))
    if not wheels:
        parser.error("no wheels there: scripts/validation-packages fetches them")
    folder = settings.pop("models") or home / "models"
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(home, folder, wheels, **settings)
    bench.save = lambda: write(as_json(bench), markdown, output)
    for name in chosen or MEASURES:
        MEASURES[name](bench)
        bench.save()


if __name__ == "__main__":
    main()
