"""docker-compose.yml cannot be run everywhere, so its parts are held against the code."""

from __future__ import annotations

from pathlib import Path

import typer
import yaml

from foramen.cli import app
from foramen.kernel.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def test_every_dependency_secret_and_volume_exists() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        volumes = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= set(COMPOSE["volumes"]), name


def test_every_command_and_setting_is_real() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    known = {f"FORAMEN_{name.upper()}" for name in Settings.model_fields}
    for name, service in COMPOSE["services"].items():
        command = service.get("command")
        assert command is None or (command[0] == "foramen" and command[1] in commands), name
        ours = {key for key in service["environment"] if key.startswith("FORAMEN_")}
        assert ours <= known, name


def test_no_secret_stands_in_the_file() -> None:
    for service in COMPOSE["services"].values():
        for key, value in service["environment"].items():
            assert "PASSWORD" not in key or key.endswith("_FILE"), key
            assert (
                "://" not in str(value) or ":" not in str(value).split("://")[1].split("@")[0] or "@" not in str(value)
            )
