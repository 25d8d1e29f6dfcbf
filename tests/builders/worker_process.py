"""The worker as a process of its own, with a hand-made pipeline that can be slow or fail: for kill -9 and restarts.

Environment: SLOW_S (seconds of a run), PIPELINE (hand-made, declines, breaks, real), RUNS_FILE (a line for each run:
run, model version, study), REQUESTS_FILE (a line for each request to the archive: method and path).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from pydicom.dataset import Dataset

from ai_services import worker
from ai_services.models.registry import Manifest
from ai_services.prediction import PipelineError, Prediction
from ai_services.workflow import services as worker_services
from ai_services.workflow.retry import RetryPolicy
from foramen.kernel.settings import Settings
from tests.builders.prediction import hand_made


def pipeline(series: Sequence[Dataset], manifest: Manifest | None) -> Prediction:
    """What PIPELINE says, after SLOW_S seconds."""
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as file:
        file.write(f"run {manifest.version if manifest else ''} {series[0].StudyInstanceUID}\n")
    time.sleep(float(os.environ.get("SLOW_S", "0")))
    kind = os.environ.get("PIPELINE", "hand-made")
    if kind == "declines":
        raise PipelineError("not-lumbar-mr", "no lumbar spine", "未见腰椎")
    if kind == "breaks":
        raise ZeroDivisionError("secret of 合成^测试")
    return hand_made(series)


def count_requests(file: Path) -> None:
    """Note every request to the archive as it is sent; whatever asks, asks by `requests`."""
    send = requests.Session.send

    def noted(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{request.method} {urlsplit(str(request.url)).path}\n")
        return send(session, request, **options)

    requests.Session.send = noted  # type: ignore[method-assign]


def main() -> None:
    """Run until SIGTERM."""
    settings = Settings()
    if "REQUESTS_FILE" in os.environ:
        count_requests(Path(os.environ["REQUESTS_FILE"]))
    connect = worker_services.connect

    def connect_for_tests(settings: Settings, worker_id: str) -> worker_services.Services:
        services = connect(settings, worker_id)
        services.retry = RetryPolicy(attempts=int(os.environ.get("ATTEMPTS", "4")), first_pause_s=0.3, growth=1.5)
        services.closing = RetryPolicy(attempts=100, first_pause_s=0.3, growth=1.0)
        if os.environ.get("PIPELINE") != "real":
            services.run_pipeline = pipeline
        return services

    worker_services.connect = connect_for_tests
    worker.run(settings, os.environ["FORAMEN_DATABASE_URL"])


if __name__ == "__main__":
    main()
