"""CPU seconds of the listing that finds changed pixels, on many small local stamps.

python -m benchmarks.listing --files 20000 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from lenspipe.cutouts import open_reader
from lenspipe.cutouts.formats.stamps import Options


def cpu_seconds(folder: Path) -> float:
    """What listing and digest of a folder's stamps take of the process's CPU."""
    options = Options(
        reader="stamps", path=str(folder / "{object_id}_{band}.fits"), bands={"g": "g"}
    )
    began = time.process_time()
    listing = open_reader(options, str(folder)).listing()["g"]
    listing.sha256  # noqa: B018  # computed where it is asked for
    return time.process_time() - began


def main() -> None:
    """Print the median of the rounds as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        for number in range(options.files):
            Path(folder, f"{number}_g.fits").touch()
        taken = [cpu_seconds(Path(folder)) for _ in range(options.rounds)]
    print(json.dumps({"files": options.files, "cpu_s": round(statistics.median(taken), 3)}))


if __name__ == "__main__":
    main()
