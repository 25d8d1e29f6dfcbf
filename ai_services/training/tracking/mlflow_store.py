"""Repeats a run's record and figures to MLflow: parameters, metrics, dataset version, code, documents (stage 11).

https://mlflow.org/docs/latest/ml/tracking/. It reads the files of the run and stands outside its process: nothing that
the store does or does not do touches the training. Started again, it goes on behind the last step that it told.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from ai_services.training.tracking.run_record import STEPS_FILE, RunRecord, read, read_steps

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PLACE_FILE = "tracking.json"
DOCUMENTS = ("run.json", STEPS_FILE, "curves.html")
_BATCH = 200
_CONNECT_S = 5
_STATES = {"running": "RUNNING", "finished": "FINISHED", "stopped": "KILLED"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands in a store: the store's digest, MLflow's run id, the last step that was told."""

    store: str
    run_id: str
    step: int


def tell(folder: Path, uri: str, artifacts: Path, state: str) -> Place:
    """Tell the store what it does not know yet of a run.

    Parameters
    ----------
    folder : of the run
    uri : ``sqlite:///FILE``, ``postgresql://…``, or that of a tracking server (``https://…``)
    artifacts : folder for documents, of stores that are databases
    state : ``running``, ``finished`` or ``stopped``

    Raises
    ------
    Exception
        Whatever the store's client raises; who calls goes on without it.
    """
    record, client = read(folder), _client(uri)
    place = _place(folder, uri) or _new_run(client, record, folder, uri, artifacts)
    from mlflow.entities import Metric

    told = place.step
    due = [figures for figures in read_steps(folder) if figures["step"] > told]
    for start in range(0, len(due), _BATCH):
        part = due[start : start + _BATCH]
        now = int((folder / STEPS_FILE).stat().st_mtime * 1000)
        metrics = [
            Metric(name, float(value), now, int(figures["step"]))
            for figures in part
            for name, value in figures.items()
            if name != "step"
        ]
        client.log_batch(place.run_id, metrics=metrics)
        place = _keep(folder, Place(place.store, place.run_id, int(part[-1]["step"])))
    client.set_tag(place.run_id, "foramen.sessions", str(len(record.sessions)))
    client.set_tag(place.run_id, "foramen.code", record.sessions[-1].code)
    if state == "running":
        client.update_run(place.run_id, status="RUNNING")
    else:
        for name in DOCUMENTS:
            if (folder / name).exists():
                client.log_artifact(place.run_id, str(folder / name))
        client.set_terminated(place.run_id, _STATES[state])
    return place


def parameters_of(record: RunRecord) -> dict[str, str]:
    """The recipe as flat parameters; ``options.channels`` and so on."""
    return {name: value[:500] for name, value in _flat("", record.recipe)}


def tags_of(record: RunRecord) -> dict[str, str]:
    """What a model came from, as tags: digests of recipe, dataset version and code."""
    return {
        "foramen.recipe": record.recipe_digest,
        "foramen.dataset": f"{record.dataset['name']}-{record.dataset['digest']}",
        "foramen.dataset.licence": str(record.dataset["licence"]),
        "foramen.code": record.sessions[-1].code,
        "foramen.device": record.sessions[-1].device,
    }


def store_url(uri: str) -> str:
    """The URI as SQLAlchemy wants it: PostgreSQL through the driver that is installed."""
    for start in ("postgresql://", "postgres://"):
        if uri.startswith(start):
            return "postgresql+psycopg://" + uri.removeprefix(start)
    return uri


def _client(uri: str) -> MlflowClient:
    # Nothing about a training leaves for anywhere but the store that the operator names.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if store_url(uri).startswith("postgresql"):
        # MLflow would try a database that is away for minutes, and who waits for it may wait for the end of a training.
        psycopg.connect(uri.replace("+psycopg", "", 1), connect_timeout=_CONNECT_S).close()
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=store_url(uri))


def _new_run(client: MlflowClient, record: RunRecord, folder: Path, uri: str, artifacts: Path) -> Place:
    from mlflow.entities import Param, RunTag

    found = client.get_experiment_by_name(record.name)
    if found is not None:
        experiment = found.experiment_id
    else:
        database = uri.split(":", 1)[0].split("+", 1)[0] in ("sqlite", "postgresql", "postgres")
        experiment = client.create_experiment(record.name, str(artifacts.resolve()) if database else None)
    run = client.create_run(experiment, run_name=folder.resolve().name)
    params = [Param(name, value) for name, value in parameters_of(record).items()]
    client.log_batch(run.info.run_id, params=params, tags=[RunTag(*item) for item in tags_of(record).items()])
    return _keep(folder, Place(_digest(uri), run.info.run_id, 0))


def _place(folder: Path, uri: str) -> Place | None:
    """Where the run stands in this store; None in another one."""
    try:
        place = Place(**json.loads((folder / PLACE_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return place if place.store == _digest(uri) else None


def _keep(folder: Path, place: Place) -> Place:
    staged = folder / f".{PLACE_FILE}.part"
    staged.write_text(json.dumps({"store": place.store, "run_id": place.run_id, "step": place.step}), encoding="utf-8")
    staged.rename(folder / PLACE_FILE)
    return place


def _digest(uri: str) -> str:
    """Names a store without its password."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def _flat(start: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(f"{start}{name}.", value)
        else:
            found.append((f"{start}{name}", json.dumps(value) if isinstance(value, list) else str(value)))
    return found
