"""The command line: each command parses, calls one module, prints."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from lenspipe import __version__
from lenspipe.commands import catalogue, forecast, grades, submit
from lenspipe.commands.common import (
    Fresh,
    MaxCpus,
    MaxGpus,
    RetryFailed,
    RunFolder,
    WaitSeconds,
    print_aligned,
    print_fields,
)
from lenspipe.config import load_survey
from lenspipe.errors import InputError, LenspipeError, one_line
from lenspipe.processes import stopping
from lenspipe.redaction import redact
from lenspipe.storage.names import require_sound
from lenspipe.telling.stderr import forget_broken, forgiving

if TYPE_CHECKING:
    from lenspipe.config import Runtime
    from lenspipe.metrics import RunMetrics
    from lenspipe.telling.progress import Progress

app = typer.Typer(
    name="lenspipe",
    help="Finds strong gravitational lenses in imaging surveys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(help="The shipped models and any other.")
app.add_typer(models_app, name="models")
app.add_typer(grades.app, name="grades")
app.add_typer(catalogue.app)  # its commands stand beside the others
app.add_typer(forecast.app)
app.add_typer(submit.app)


SurveyFile = Annotated[Path, typer.Argument(metavar="SURVEY.yaml", help="The survey file.")]


@app.command()
def check(
    survey: SurveyFile,
    address: Annotated[str | None, typer.Option(help="Ray cluster that it will run on.")] = None,
) -> None:
    """Find every mistake that shows before a GPU starts: files, columns, bands, models, cost."""
    from lenspipe.check import check_machine, check_survey, describe

    loaded = load_survey(survey)
    slots = check_machine(loaded, address)
    print_fields(describe(check_survey(loaded), slots))


@app.command()
def run(
    survey: SurveyFile,
    output: Annotated[str | None, typer.Option(help="Run directory; default: the file's.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: this machine.")] = None,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    wait: WaitSeconds = 0.0,
    max_cpus: MaxCpus = 0.0,
    max_gpus: MaxGpus = 0.0,
) -> None:
    """Run a survey, or what is left of it."""
    from lenspipe.check import check_machine
    from lenspipe.job import describe_run, run_survey
    from lenspipe.metrics import RunMetrics
    from lenspipe.preflight import allow_open_files
    from lenspipe.processes.slots import Machine
    from lenspipe.telling.events import Events
    from lenspipe.telling.progress import make_progress

    if fresh:
        stopping.will_resume("the same command without --fresh resumes")
    else:
        stopping.will_resume()
    loaded = load_survey(survey)
    if output is not None:
        loaded = loaded.model_copy(update={"output": _absolute(output)})
    check_machine(loaded, address)
    if (max_cpus or max_gpus) and not (address or loaded.runtime.address):
        raise InputError("--max-cpus, --max-gpus", "a cluster (--address)", "none")
    allow_open_files()
    with make_progress() as progress:
        metrics = RunMetrics(loaded.name)
        with _served(metrics, loaded.runtime, progress):
            info = run_survey(
                loaded,
                Events(metrics, progress),
                address,
                fresh,
                retry_failed,
                wait,
                Machine(max_cpus, max_gpus) if max_cpus or max_gpus else None,
            )
    print_fields(describe_run(loaded, info))


@app.command()
def score(
    ensemble: Annotated[str, typer.Argument(help="A name in the zoo or a path.")],
    cutouts: Annotated[str, typer.Argument(help="A file or folder of cutouts.")],
    out: Annotated[str, typer.Option(help="Parquet file or URL to write.")],
    catalogue: Annotated[
        str | None, typer.Option(help="CSV or Parquet with a row each, or its URL.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="YAML that says how the files lie.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the reader's options.")
    ] = None,
    provider: Annotated[
        str, typer.Option(help="auto, cpu, openvino, openvino_bf16, cuda or tensorrt.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all cores.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Catalogue column to count results by; repeatable.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write a page with pictures too.")] = True,
    prevalence: Annotated[
        float | None, typer.Option(help="Fraction of lenses that probabilities hold at.")
    ] = None,
) -> None:
    """Score cutouts with nothing of a survey around them."""
    from lenspipe.models.providers import parse_provider
    from lenspipe.score.layout import parse_settings
    from lenspipe.score.score_cutouts import score_cutouts

    summary = score_cutouts(
        ensemble,
        cutouts,
        out,
        catalogue=catalogue,
        layout=layout,
        options=parse_settings(setting or ()),
        provider=parse_provider(provider),
        threads=threads or len(os.sched_getaffinity(0)),
        group=group or (),
        report=report,
        prevalence=prevalence,
    )
    print_fields(summary.lines())
    if summary.groups is not None:
        print_aligned([summary.groups.heading(), *summary.groups.cells()])


@app.command()
def status(run: RunFolder) -> None:
    """How far a run is."""
    from lenspipe.run.status import describe_status

    print_fields(describe_status(run))


@app.command()
def verify(run: RunFolder) -> None:
    """Prove from the files that nothing was lost and nothing counted twice."""
    from lenspipe.run.status import open_run
    from lenspipe.run.verify import verify as find_faults

    faults = find_faults(open_run(run)[0])
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(1)
    typer.echo("verified: every source is accounted for, every file is what its record says")


@app.command()
def report(run: RunFolder) -> None:
    """Write the run's page again."""
    from lenspipe.report import write_report
    from lenspipe.run.status import open_run, parse_identity
    from lenspipe.run_directory import REPORT

    directory, identity = open_run(run)
    write_report(directory, parse_identity(identity).survey.publish.mosaic)
    typer.echo(directory.store.path(REPORT))


@models_app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        models_list()


@models_app.command("list")
def models_list() -> None:
    """The shipped models."""
    from lenspipe.models.zoo import list_models

    table = Table("name", "kind", "bands", "what it is")
    for entry in list_models():
        table.add_row(entry.name, entry.kind, " ".join(entry.bands), entry.description)
    Console().print(table)


@models_app.command("show")
def models_show(model: str) -> None:
    """A model's card, or an ensemble's file, as JSON."""
    from lenspipe.models.zoo import show

    typer.echo(json.dumps(show(model), indent=2))


@models_app.command("verify")
def models_verify(
    model: Annotated[str | None, typer.Argument(help="Default: all shipped.")] = None,
) -> None:
    """Check card, weights and that the network gives what its card says."""
    from lenspipe.models.zoo import list_models
    from lenspipe.models.zoo import verify as verify_model

    shipped = [entry.name for entry in list_models()]
    for name in [model] if model else shipped:
        print_fields(verify_model(name))


@models_app.command("reference")
def models_reference(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="Ensemble file to write, .yaml.")],
    population: Annotated[
        str | None, typer.Option(help="Whose scores they are; default: the run's name and day.")
    ] = None,
) -> None:
    """Write the run's ensemble with the run's own scores, which later runs are held against."""
    from lenspipe.run.score_reference import write_reference

    found = write_reference(run, out, population)
    typer.echo(f"{sum(found.counts):,} scores in {len(found.counts)} bins: {out}")


@app.command()
def bench(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    rows: Annotated[int, typer.Option(help="Catalogue rows of the select bench.")] = 8_000_000,
    cutouts: Annotated[int, typer.Option(help="Cutouts of the score bench.")] = 8192,
    rounds: Annotated[int, typer.Option(help="Rounds; the median is told.")] = 3,
    provider: Annotated[
        str, typer.Option(help="Of the score bench: as `runtime.provider`.")
    ] = "cpu",
) -> None:
    """Measure this machine: the job against the bare tools, as ratios."""
    from lenspipe.bench import run_benches
    from lenspipe.models.providers import parse_provider

    found = run_benches(
        rows=rows, cutouts=cutouts, rounds=rounds, provider=parse_provider(provider)
    )
    if as_json:
        typer.echo(json.dumps(found))
        return
    for group, values in found.items():
        print_fields([(f"{group} {key}", _plain(value)) for key, value in values.items()])


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"lenspipe {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: whatever goes wrong is one line on stderr, with an exit status of its own,
    whether or not that line can be written."""
    stopping.end_on_signals()
    try:
        _run_command()
    except SystemExit as ended:
        _leave_hung(ended)
        raise
    finally:
        forget_broken()


def _leave_hung(ended: SystemExit) -> None:
    """End at once where a thread hangs in a read: Python would wait for those that it started."""
    from lenspipe.processes.time_limit import is_hung

    if is_hung():
        forget_broken()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)


def _run_command() -> NoReturn:
    try:
        status = app(standalone_mode=False)
    except LenspipeError as error:
        kind = "error" if isinstance(error, InputError) else type(error).__name__
        _fail(f"{kind}: {error}", error.exit_status)
    except _UsageError as error:
        # Empty where the command alone was given, which prints its help.
        found = error.format_message()
        _fail(f"error: command line: {found}" if found else "", 2)
    except SystemExit:
        stopped = stopping.asked()
        if stopped is not None:
            _fail(stopping.said(stopped), stopped)
        raise
    except (KeyboardInterrupt, typer.Abort):
        _fail(stopping.said(130), 130)
    except Exception as error:  # a user can do more with a line than with a trace
        _fail_where_refused(error)
        _fail(f"fault: {type(error).__name__}: {error}; {_keep_traceback(error)}", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _fail_where_refused(error: Exception) -> None:
    """End where the system refused (a full disk, no right to write): that is no fault of ours."""
    from lenspipe.storage.refusals import describe_refusal, is_refusal

    if is_refusal(error):
        _fail(
            f"StoppedError: {describe_refusal(error)}; with that mended, the same command works", 1
        )


def _keep_traceback(error: Exception) -> str:
    """Where the traceback was written, for whoever mends the fault."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lenspipe-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(redact("".join(traceback.format_exception(error))))
    except OSError as problem:
        return f"its traceback could not be written ({problem})"
    return f"traceback in {file.name}"


# What Typer raises for a wrong command line; it exports only this subclass of it.
_UsageError: Any = typer.BadParameter.__bases__[0]


def _fail(line: str, status: int) -> NoReturn:
    if line:
        typer.echo(one_line(line), file=forgiving(sys.stderr))
    sys.exit(status)


@contextmanager
def _served(metrics: RunMetrics, runtime: Runtime, progress: Progress) -> Iterator[None]:
    """Serve /metrics where the survey file asks for it, at the end until the last state is scraped;
    after an error too, which is what an alert is to see."""
    if runtime.metrics_port is None:
        yield
        return
    _serve_metrics(metrics, runtime, runtime.metrics_port, progress)
    try:
        yield
    except Exception:
        metrics.linger(runtime.metrics_linger_s, progress.message)
        raise
    else:
        metrics.linger(runtime.metrics_linger_s, progress.message)
    finally:
        metrics.stop()


def _serve_metrics(metrics: RunMetrics, runtime: Runtime, port: int, progress: Progress) -> None:
    host = runtime.metrics_host
    try:
        served = metrics.serve(port, host)
    except OSError as error:
        found = f"{port}: {error}"
        raise InputError("runtime.metrics_port", f"a free port of {host}", found) from error
    progress.message(f"metrics on http://{host}:{served}/metrics")


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _absolute(output: str) -> str:
    require_sound(output, "--output")
    return output if "://" in output else str(Path(output).absolute())
