"""`python -m ai_services.training.engine --recipe FILE --data DIR --manifest FILE --out DIR`: one process of a run.

Alone, or started by torchrun on as many processes and nodes as wanted; `foramen train` starts it and shows progress.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import torch

from ai_services.training.dataset_version import DatasetError, load
from ai_services.training.engine.checkpoint import CheckpointError
from ai_services.training.engine.loop import Run, train
from ai_services.training.engine.parallel import joined
from ai_services.training.engine.recipe import RecipeError, read_recipe
from ai_services.training.tracking.run_record import RunRecordError, claimed

REFUSED = 2


def main(arguments: list[str] | None = None) -> int:
    """Do this process's part of a run; 2 when it is refused, with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m ai_services.training.engine", description=__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest of the dataset version")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoints, steps.jsonl")
    parser.add_argument("--cache", choices=("memory", "disk", "none"), default="memory")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of this process; 0: all")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    signal.signal(signal.SIGTERM, _leave)
    try:
        run = Run(read_recipe(options.recipe), load(options.manifest), options.data, options.out, options.cache)
        with joined() as place, claimed(options.out) if place.first else nullcontext():
            train(run, place)
    except (RecipeError, DatasetError, CheckpointError, RunRecordError) as refused:
        print(f"refused: {refused}", file=sys.stderr)  # noqa: T201  the process's answer to who started it
        return REFUSED
    return 0


def _leave(_: int, __: FrameType | None) -> None:
    """SIGTERM between two checkpoints loses the steps since the last one; they are computed again."""
    raise SystemExit(143)


if __name__ == "__main__":
    raise SystemExit(main())
