"""`foramen bench NAME`: each benchmark prints medians and ratios and adds a line to docs/benchmarks/history.jsonl."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.command()
def fhir(
    sizes: Annotated[str, typer.Option(help="Sizes of the record to measure at, in Observations.")] = "10000,100000",
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of one run of wrk.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each figure.")] = 3,
    processes: Annotated[int, typer.Option(min=1, help="Web processes on the port.")] = 1,
) -> None:
    """Rates of the FHIR server: reads, searches, writes, transactions, export, import, over a growing record."""
    from foramen.commands.bench_fhir import run

    run([int(size) for size in sizes.split(",")], seconds, repeats, processes)


@app.command()
def spine() -> None:
    """From the last instance stored to the report, model time, first page, start-up and memory."""
    from foramen.commands.bench_spine import run

    run()


@app.command()
def auth(
    seconds: Annotated[int, typer.Option(min=1, help="Seconds of one run of wrk.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Runs.")] = 3,
) -> None:
    """Code-flow sign-ins per second without password hashing; what tokens, the policy and access rules cost."""
    from foramen.commands.bench_auth import run

    run(seconds, repeats)


@app.command()
def dicomweb(
    instances: Annotated[int, typer.Option(min=2, help="SYNTHETIC CT instances to store.")] = 5000,
    per_series: Annotated[int, typer.Option(min=1, help="Instances of a series.")] = 1000,
    size: Annotated[int, typer.Option(min=8, help="Edge of an image in pixels.")] = 512,
    studies: Annotated[str, typer.Option(help="Sizes of the study index to search in.")] = "10000,100000",
    per_study: Annotated[int, typer.Option(min=1, help="Instances of a study of that index.")] = 10,
    questions: Annotated[int, typer.Option(min=1, help="Searches of each kind.")] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of the other figures.")] = 5,
) -> None:
    """Metadata, searches and retrieval beside the archive's own DICOMweb plug-in, in the same run."""
    from foramen.commands.bench_dicomweb import run

    run(instances, per_series, size, [int(one) for one in studies.split(",")], per_study, questions, repeats)


@app.command()
def ai(
    parts: Annotated[
        str, typer.Option(help="models, throughput, queue, parity and variants (both need the training libraries).")
    ] = "models,throughput,queue,parity",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of what is taken by turns.")] = 7,
    studies: Annotated[int, typer.Option(min=2, help="Studies of the throughput.")] = 24,
    queued: Annotated[int, typer.Option(min=2, help="Studies sent to the queue; a P99 needs 100.")] = 24,
    processes: Annotated[int, typer.Option(min=1, help="Processes of the throughput, one thread each.")] = 2,
    rate: Annotated[int, typer.Option(min=1, help="Images a minute that are sent to the queue.")] = 120,
) -> None:
    """Preprocessing, recognition, batch throughput, waiting in the queue, memory; CPU and, where there is one, GPU."""
    from foramen.commands.bench_ai import run
    from foramen.commands.bench_ai_figures import PARTS, Sizes

    chosen = [part.strip() for part in parts.split(",")]
    if not set(chosen) <= set(PARTS):
        raise typer.BadParameter(f"parts are {', '.join(PARTS)}", param_hint="--parts")
    run(chosen, Sizes(repeats, studies, queued, processes, rate))
