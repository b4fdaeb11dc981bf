"""`lenspipe submit`: a survey as a job of a Ray cluster that is elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lenspipe.commands.common import (
    Fresh,
    MaxCpus,
    MaxGpus,
    RetryFailed,
    WaitSeconds,
    print_fields,
)
from lenspipe.errors import one_line
from lenspipe.processes import stopping

if TYPE_CHECKING:
    from lenspipe.submit import Order
    from lenspipe.telling.job_log import JobLog

app = typer.Typer()


@app.command()
def submit(
    survey: Annotated[Path, typer.Argument(metavar="SURVEY.yaml", help="The survey file.")],
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS",
            help="Job server of the cluster's head: http://HEAD:8265.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option(help="Run directory, as the cluster sees it; default: the file's.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the job of this run instead.")] = False,
    allow_open_cluster: Annotated[
        bool, typer.Option("--allow-open-cluster", help="Take a cluster that asks for no token.")
    ] = False,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    wait: WaitSeconds = 300.0,
    max_cpus: MaxCpus = 0.0,
    max_gpus: MaxGpus = 0.0,
) -> None:
    """Run a survey on a cluster as a job, and follow it: its log, and its exit status."""
    import asyncio

    from lenspipe.submit import check_url, read_order
    from lenspipe.telling.job_log import job_log

    check_url(address)
    options = [
        *(["--fresh"] if fresh else []),
        *(["--retry-failed"] if retry_failed else []),
        *(["--wait", f"{wait:g}"] if wait else []),
        *(["--max-cpus", f"{max_cpus:g}"] if max_cpus else []),
        *(["--max-gpus", f"{max_gpus:g}"] if max_gpus else []),
    ]
    order = read_order(survey, output, tuple(options))
    with job_log(sys.stdout, sys.stderr) as log:
        status = asyncio.run(_at(address, allow_open_cluster, order, detach, stop, log))
    raise typer.Exit(status)


async def _at(
    address: str, allow_open: bool, order: Order, detach: bool, stop: bool, log: JobLog
) -> int:
    from lenspipe import submit as job
    from lenspipe.processes.job_server import JobServer

    async with JobServer(address) as server:
        await job.introduce(server, allow_open)
        if stop:
            ended = await job.stop(server, order, log.message)
            typer.echo(f"job {ended.name}: {ended.status.lower()}")
            return 0
        name = await job.begin(server, order, log.message)
        if detach:
            print_fields(
                [
                    ("job", name),
                    ("follow", "the same command without --detach"),
                    ("stop", "the same command with --stop"),
                    ("status", f"lenspipe status {order.output}"),
                ]
            )
            return 0
        stopping.will_resume(
            f"job {name} goes on: the same command (without --fresh) follows it, with --stop it "
            "ends it"
        )
        log.message(f"job {name} on {address}")
        ended = await job.follow(server, name, log)
    status = job.exit_status(ended)
    if status:
        told = log.close(failed=True) or one_line(ended.message)
        typer.echo(told or f"job {name}: {ended.status.lower()}", err=True)
    return status
