"""Sparse reads of Zarr: the plan against "whole chunk" and "one object", local and remote."""

from __future__ import annotations

import argparse
import json

from lenspipe.bench.sparse import measure


def main() -> None:
    """Print one JSON object per store, density and choice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, figures in measure(options.objects, options.rounds).items():
        print(json.dumps({"what": name, **figures}))


if __name__ == "__main__":
    main()
