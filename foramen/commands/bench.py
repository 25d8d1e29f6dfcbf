"""`foramen bench NAME`: each benchmark prints medians and ratios and adds a line to docs/benchmarks/history.jsonl."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True)


@app.command()
def fhir() -> None:
    """Read, create, search and transaction rates of the FHIR server."""
    from foramen.commands.bench_fhir import run

    run()


@app.command()
def spine() -> None:
    """From the last instance stored to the report, model time, first page, start-up and memory."""
    from foramen.commands.bench_spine import run

    run()
