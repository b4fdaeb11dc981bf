"""Stage `select` over a bare DuckDB query with the same cuts, threads and file."""

from __future__ import annotations

import argparse
import json

from lenspipe.bench.select import measure


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--network", help="photometry network: a name in the zoo or a path")
    options = parser.parse_args()
    print(json.dumps(measure(options.rows, options.rounds, options.threads, options.network)))


if __name__ == "__main__":
    main()
