"""How stage `score` of a million shards grows with nodes, and where it stops: a simulation.

    python -m benchmarks.scaling [--shards 1000000] [--picture docs/scaling.svg]

Prints one JSON object: for each kind of node and number of nodes hours, speed-up over one node, the
share of the scorers' time that goes into shards, and how busy the driver is; each for a cluster
without faults, with stragglers, and with nodes that are lost besides. `docs/planning.md` says what
is assumed. About two minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lenspipe.forecast.estimate import DRIVER_S, DRIVER_SCAN_S
from lenspipe.forecast.simulation import Cluster, Stragglers, draw_seconds, simulate

NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SPREAD = 0.15  # standard deviation of the logarithm of a shard's seconds
STRAGGLERS = Stragglers(fraction=0.001, factor=10.0)
FAILURES_PER_NODE_DAY = 0.1
BACK_AFTER_S = 300.0
# What the driver does alone: 8192 selected rows a shard to plan and to publish, a row as in
# docs/performance.md.
ALONE_S_PER_SHARD = 8192 * (3.5e-6 + 8.4e-6)


@dataclass(frozen=True)
class Kind:
    """A kind of node. shard_s: seconds of a scorer for a shard of 8192 rows."""

    name: str
    workers: int
    shard_s: float
    colour: str


KINDS = (
    Kind("16 CPUs, 3.1 ms a cutout", 16, 25.4, "#5b7fb4"),
    Kind("4 GPUs, 0.2 ms a cutout", 4, 1.6, "#c2410c"),
)


def measure(shards: int) -> list[dict[str, Any]]:
    """One row for each kind of node, number of nodes and kind of fault."""
    found = []
    for kind in KINDS:
        rng = np.random.default_rng(0)
        measured = kind.shard_s * rng.lognormal(-0.5 * SPREAD**2, SPREAD, 10_000)
        plain = draw_seconds(shards, measured, rng)
        slow = draw_seconds(shards, measured, rng, STRAGGLERS)
        for nodes in NODES:
            calm = Cluster(nodes, kind.workers, 2, DRIVER_S, DRIVER_SCAN_S)
            failing = replace(
                calm,
                failures_per_node_hour=FAILURES_PER_NODE_DAY / 24.0,
                back_after_s=BACK_AFTER_S,
            )
            for fault, seconds, cluster in (
                ("none", plain, calm),
                ("stragglers", slow, calm),
                ("stragglers, nodes lost", slow, failing),
            ):
                outcome = simulate(seconds, cluster, rng)
                assert (outcome.done == 1).all()
                found.append(
                    {
                        "kind": kind.name,
                        "nodes": nodes,
                        "faults": fault,
                        "hours": outcome.seconds / 3600.0,
                        "speed_up": float(seconds.sum()) / kind.workers / outcome.seconds,
                        "efficiency": outcome.efficiency,
                        "driver_use": outcome.driver_use,
                        "nodes_lost": outcome.failures,
                        "lost_share": outcome.lost_s / outcome.busy_s,
                    }
                )
    return found


def draw(rows: list[dict[str, Any]], path: Path, shards: int) -> None:
    """Hours against nodes, both logarithmic, the ideal beside each kind."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "scaling", "svg.fonttype": "none", "font.size": 9.0}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for kind in KINDS:
            own = [row for row in rows if row["kind"] == kind.name]
            for fault, style in (("none", "-"), ("stragglers, nodes lost", "o")):
                hours = [row["hours"] for row in own if row["faults"] == fault]
                label = kind.name if fault == "none" else f"{kind.name}: with faults"
                axes.plot(NODES, hours, style, color=kind.colour, label=label, ms=4)
            first = next(row["hours"] for row in own)
            axes.plot(NODES, [first / n for n in NODES], ":", color=kind.colour, lw=1)
        axes.axhline(shards * ALONE_S_PER_SHARD / 3600.0, color="#3d4654", lw=1, ls="--")
        axes.text(
            NODES[-1],
            shards * ALONE_S_PER_SHARD / 3600.0 * 1.1,
            "planning and publishing",
            ha="right",
        )
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="hours of stage score")
        axes.set_xticks(NODES, [str(n) for n in NODES])
        axes.minorticks_off()
        axes.legend(frameon=False)
        axes.grid(color="#d9dee6", lw=0.5)
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Print the measurement as one JSON object, and draw it where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    rows = measure(options.shards)
    if options.picture:
        draw(rows, options.picture, options.shards)
    print(json.dumps({"shards": options.shards, "rows": rows}))


if __name__ == "__main__":
    main()
