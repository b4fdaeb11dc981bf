"""Stage `select` over a bare DuckDB query with the same cuts, threads and file: with the
photometry network, and with cuts only (`select_cuts_…`).

`--profile` tells instead where the stage's processor time goes. `hours_for_3e9_rows` is the
measured rate of each carried on to Pan-STARRS 3π, with as many threads as here.
"""

from __future__ import annotations

import argparse
import json

from lenspipe.bench.select import NETWORK, measure_both, profile


def main() -> None:
    """Print the measurement as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--network", default=NETWORK, help="photometry network: a name in the zoo or a path"
    )
    parser.add_argument("--profile", action="store_true", help="ms per million rows by step")
    options = parser.parse_args()
    if options.profile:
        print(json.dumps(profile(options.rows, options.network)))
    else:
        found = measure_both(options.rows, options.rounds, options.threads, options.network)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
