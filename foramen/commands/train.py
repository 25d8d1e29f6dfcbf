"""`foramen train RECIPE …`: a training run on one process or several, with progress; started again, it goes on.

Contract module 2; docs/how-to/train_a_model.md. The work is done by `python -m ai_services.training.engine` (make
setup-train); on several machines start it by torchrun there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_ENGINE = "ai_services.training.engine"
_TRACKING = "ai_services.training.tracking"
_FIGURES = ("validation_dice", "validation_auroc")
_LOOK_S = 0.3
_PAGE_EVERY_S = 2.0
_TRACKING_ENDS_S = 60.0


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    data: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    manifest: Annotated[Path, typer.Option(help="Manifest of the dataset version, of foramen dataset create.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; a run that is there goes on.")],
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of each process; 0: all.")] = 0,
    cache: Annotated[str, typer.Option(help="memory, disk or none: where decoded slices are kept.")] = "memory",
    restarts: Annotated[
        int, typer.Option(min=0, help="Times that all processes start again from the checkpoint when one dies.")
    ] = 0,
    search: Annotated[
        int, typer.Option(min=0, help="Trials of the recipe's search; --out is the study's folder. 0: one run.")
    ] = 0,
    tracking: Annotated[
        str | None,
        typer.Option(help="MLflow store (sqlite:///FILE, postgresql://…, https://…), or none."),
    ] = None,
) -> None:
    """Train a network; interrupted or killed, the same command goes on from the last checkpoint."""
    if importlib.util.find_spec("torch") is None:
        raise typer.BadParameter("training needs PyTorch and MONAI: make setup-train")
    steps = _steps(recipe)
    options = ["--data", data, "--manifest", manifest, "--cache", cache, "--threads", threads]
    launcher = ["-m", _ENGINE]
    if processes > 1 or restarts:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        launcher += [f"--max-restarts={restarts}", "-m", _ENGINE]
    command = [sys.executable, *launcher, *map(str, options)]
    if search:
        from foramen.commands.train_search import search_recipe

        search_recipe(recipe, manifest, out, search, command)
        return
    out.mkdir(parents=True, exist_ok=True)
    log_file = out / "log.txt"
    with log_file.open("ab") as log, _tracked(out, tracking, log_file) as ended:
        process = subprocess.Popen(
            [*command, "--recipe", str(recipe), "--out", str(out)],
            stdout=log,
            stderr=log,
            # A restarted process must not find the addresses of those that were killed in a store they shared.
            env={**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        )
        try:
            _show(process, out, steps)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            if process.returncode == 0:
                ended.append("finished")
    if process.returncode:
        for line in log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]:
            typer.echo(line, err=True)
        raise typer.Exit(process.returncode)
    typer.echo(f"{out / 'checkpoints'}: {json.dumps(_last(out))}")


@contextmanager
def _tracked(out: Path, wanted: str | None, log_file: Path) -> Iterator[list[str]]:
    """Tell a tracking store meanwhile, in a process of its own that the training does not know of."""
    from ai_services.training.tracking.curves import write_page
    from foramen.kernel.settings import get_settings

    home = get_settings().home / "training"
    uri = wanted or get_settings().tracking_uri or f"sqlite:///{(home / 'mlflow.db').resolve()}"
    ended: list[str] = []
    store = None
    if uri != "none" and importlib.util.find_spec("mlflow") is not None:
        command = [sys.executable, "-m", _TRACKING, out, "--uri", uri, "--artifacts", home / "artifacts"]
        with log_file.open("ab") as log:
            # A group of its own: Ctrl-C reaches the training first, and the store is told what came of it.
            store = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, start_new_session=True)
    try:
        yield ended
    finally:
        write_page(out, ended[0] if ended else "stopped")
        if store is not None:
            _end(store, finished=bool(ended))


def _end(store: subprocess.Popen[bytes], *, finished: bool) -> None:
    """Let the store be told the rest, for a while; the run's own files are whole in any case."""
    store.send_signal(signal.SIGTERM if finished else signal.SIGINT)
    try:
        missed = store.wait(_TRACKING_ENDS_S) != 0
    except subprocess.TimeoutExpired:
        store.kill()
        store.wait()
        missed = True
    if missed:
        typer.echo("the tracking store does not know all of this run; the run itself is whole", err=True)


def _steps(recipe: Path) -> int:
    from ai_services.training.engine.recipe import RecipeError, read_recipe

    try:
        return read_recipe(recipe).steps
    except RecipeError as refused:
        raise typer.BadParameter(str(refused)) from refused


def _show(process: subprocess.Popen[bytes], out: Path, steps: int) -> None:
    from ai_services.training.tracking.curves import write_page

    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    written = 0.0
    console = Console(stderr=True)
    with Progress(*columns, TextColumn("{task.fields[told]}"), console=console) as progress:
        bar = progress.add_task("train", total=steps, told="")
        while True:
            ended = process.poll() is not None
            last = _last(out)
            if last:
                told = " ".join(f"{name} {last[name]:.3f}" for name in ("loss", *_FIGURES) if name in last)
                progress.update(bar, completed=int(last["step"]), told=told)
            if ended:
                return
            if time.monotonic() - written > _PAGE_EVERY_S:
                with suppress(OSError):
                    if write_page(out, "running") and not written:
                        console.print(f"curves: {(out / 'curves.html').resolve().as_uri()}", soft_wrap=True)
                        written = time.monotonic()
                    elif written:
                        written = time.monotonic()
            time.sleep(_LOOK_S)


def _last(out: Path) -> dict[str, float]:
    """The newest whole line of the run's steps."""
    path = out / "steps.jsonl"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        lines = [line for line in file.read().split(b"\n")[:-1] if line.startswith(b"{")]
    return json.loads(lines[-1]) if lines else {}
