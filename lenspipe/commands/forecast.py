"""What a survey will take: `lenspipe plan`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from lenspipe.commands.common import print_aligned, print_fields
from lenspipe.errors import InputError

app = typer.Typer()
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


@app.command()
def plan(
    survey: Annotated[Path, typer.Argument(metavar="SURVEY.yaml", help="The survey file.")],
    deadline: Annotated[
        str | None, typer.Option(help="As 90m, 48h or 7d: the fewest nodes that meet it.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="So many, like this machine.")] = None,
    max_nodes: Annotated[int, typer.Option(min=1, max=4096, help="Most to think of.")] = 512,
    price_node_hour: Annotated[
        float, typer.Option(min=0.0, help="Of a node without its GPUs.")
    ] = 0.0,
    price_gpu_hour: Annotated[float, typer.Option(min=0.0, help="Of one GPU.")] = 0.0,
    price_read_tb: Annotated[float, typer.Option(min=0.0, help="Per TB read.")] = 0.0,
    storage_gb_per_s: Annotated[
        float | None, typer.Option(min=0.0, help="Most that the store gives all nodes together.")
    ] = None,
    node_failures_per_day: Annotated[
        float, typer.Option(min=0.0, help="How often one node is lost.")
    ] = 0.0,
    parts: Annotated[int, typer.Option(min=1, help="Most parts of the catalogue to sample.")] = 256,
    cutouts: Annotated[int, typer.Option(min=1, help="Cutouts to score.")] = 16_384,
    seed: Annotated[int, typer.Option(min=0, help="Which parts and shards.")] = 0,
    scratch: Annotated[Path | None, typer.Option(help="Folder for the sample's run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Do a sample of a survey, and tell hours, cost and nodes for all of it."""
    from lenspipe.config import load_survey
    from lenspipe.forecast.describe import describe_plan, scaling_table
    from lenspipe.forecast.estimate import Wanted, make_forecast
    from lenspipe.forecast.figures import Prices
    from lenspipe.forecast.sample import SampleSize, measure
    from lenspipe.preflight import allow_open_files, local_slots
    from lenspipe.telling.progress import make_progress

    wanted = Wanted(
        nodes=nodes,
        deadline_s=None if deadline is None else seconds_of(deadline),
        max_nodes=max_nodes,
        prices=Prices(node_hour=price_node_hour, gpu_hour=price_gpu_hour, read_tb=price_read_tb),
        storage_bytes_per_s=1e9 * storage_gb_per_s if storage_gb_per_s else None,
        node_failures_per_day=node_failures_per_day,
    )
    if scratch is not None and not scratch.is_dir():
        raise InputError("--scratch", "a folder", scratch)
    loaded = load_survey(survey)
    local_slots(loaded.runtime)
    allow_open_files()
    with make_progress() as progress:
        size = SampleSize(parts, cutouts, seed)
        sample = measure(loaded, size, progress, None if scratch is None else str(scratch))
    found = make_forecast(loaded.name, sample, wanted)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    print_fields(describe_plan(found))
    print_aligned(scaling_table(found))


def seconds_of(text: str, field: str = "--deadline") -> float:
    """Seconds of a time such as 90m, 48h or 7d; InputError at `field` where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text.strip())
    if match is None or float(match[1]) == 0.0:
        raise InputError(field, "a time such as 90m, 48h or 7d", text)
    return float(match[1]) * _SECONDS[match[2]]
