"""One command for all of it: python -m benchmarks.engine [MEASURE …] --peers HOME --output NAME.

Runs the named measures, or all. What an earlier run wrote under the same name
stays, but for the measures that are run again.
"""

import argparse
from pathlib import Path

from .measures import MEASURES, Bench
from .report import as_json, markdown, write

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument(
        "--peers", type=Path, default=HERE / "peers.d", help="made by benchmarks/peers"
    )
    parser.add_argument(
        "--models", type=Path, help="where the models lie; by default under --peers"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "engine")
    parser.add_argument("--prepare", action="store_true", help="make the models, measure nothing")
    options = parser.parse_args()
    if unknown := set(options.measures) - set(MEASURES):
        parser.error(f"no such measure: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    folder = options.models or options.peers / "models"
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.peers, folder, options.threads, options.rounds)
    if options.prepare:
        bench.prepare()
        return
    for name in options.measures or MEASURES:
        MEASURES[name](bench)
        write(as_json(bench), markdown, options.output)


if __name__ == "__main__":
    main()
