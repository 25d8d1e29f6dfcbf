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
