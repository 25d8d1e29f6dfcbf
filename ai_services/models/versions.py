"""Model versions of this installation: registered, staged, released, rolled back, recalled (stage 11).

Tables of schema `ai`. Every step is one transaction with its line in `ai.stage_change`, and holds the pipeline's lock,
so that two people who release at once cannot both win. Packages are copied under FORAMEN_HOME/models and never changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ai_services.models.registry import (
    PIPELINES,
    RELEASED_WITH_THE_SOFTWARE,
    Manifest,
    PackageError,
    package_folder,
    read_package,
)
from ai_services.models.release import SIGNATURE_FILE, check_signature, open_package, sign_package, signer
from ai_services.models.routing import RoutingError, Rule, read_rules
from ai_services.models.runtime import ModelIntegrityError
from ai_services.models.stages import Stage, StageError, check_step

WITH_THE_SOFTWARE = "foramen"
"""Who registers and releases the packages that the software comes with: whoever installed it."""

_VERSIONS = """
    SELECT name, version, digest, folder, statement, weights, stage, stage_since,
           EXISTS (SELECT 1 FROM ai.current_release c WHERE c.name = v.name AND c.version = v.version) AS current
    FROM ai.model_version v WHERE %(name)s::text IS NULL OR name = %(name)s
    ORDER BY name, stage_since DESC, version
"""
Connection = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered version; `weights` are SHA-256 by role, `current` says whether it speaks where no rule decides."""

    name: str
    version: str
    digest: str
    folder: str
    statement: str
    weights: dict[str, str]
    stage: Stage
    stage_since: datetime
    current: bool


@dataclass(frozen=True, slots=True)
class StageChange:
    """One line of a version's history."""

    version: str
    from_stage: str | None
    to_stage: str
    at: datetime
    by_whom: str
    reason: str
    confirmed: tuple[str, ...]


class ModelRegistry:
    """The registry of one installation.

    Parameters
    ----------
    database_url : PostgreSQL with the schema `ai`
    home : FORAMEN_HOME; holds the packages and the key that signs them
    """

    def __init__(self, database_url: str, home: Path) -> None:
        self._url, self._home = database_url, home

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, newest step first, or those of one pipeline."""
        with self._connection() as connection:
            return [_version(row) for row in connection.execute(_VERSIONS, {"name": name})]

    def version(self, name: str, version: str) -> ModelVersion:
        """One version; StageError where it is not registered."""
        for item in self.versions(name):
            if item.version == version:
                return item
        raise StageError("no such version is registered")

    def current(self, name: str) -> ModelVersion | None:
        """The release that speaks where no rule says otherwise."""
        return next((item for item in self.versions(name) if item.current), None)

    def history(self, name: str) -> list[StageChange]:
        """Steps of all versions of a pipeline, newest first."""
        sql = """SELECT version, from_stage, to_stage, at, by_whom, reason, confirmed FROM ai.stage_change
                 WHERE name = %s ORDER BY id DESC"""
        with self._connection() as connection:
            return [
                StageChange(**{**row, "confirmed": tuple(row["confirmed"])}) for row in connection.execute(sql, (name,))
            ]

    def register(self, folder: Path, by_whom: str, reason: str, trusted: Sequence[dict[str, Any]] = ()) -> ModelVersion:
        """Take a package in as a candidate: checked, signed and copied.

        Parameters
        ----------
        trusted : public keys (JWK) of other installations whose signed packages are taken, beside our own

        Raises
        ------
        PackageError
            Not a whole package, not what was signed where it was made, or the version's name is taken by another
            package: a version never changes.
        """
        key = signer(self._home)
        check_signature(folder, [key.public(), *trusted])
        manifest, statement = sign_package(folder, key)
        weights = {role: file.identity.sha256 for role, file in manifest.models.items()}
        with self._step(manifest.name) as connection:
            found = _find(connection, manifest.name, manifest.version)
            if found is None:
                stored = self._copy(folder, manifest)
                connection.execute(
                    """INSERT INTO ai.model_version (name, version, digest, folder, statement, weights, stage)
                       VALUES (%s, %s, %s, %s, %s, %s, 'candidate')""",
                    (manifest.name, manifest.version, manifest.digest, stored.name, statement, Jsonb(weights)),
                )
                _log(connection, manifest.name, manifest.version, None, Stage.CANDIDATE, by_whom, reason)
            elif found["digest"] != manifest.digest:
                raise PackageError("another package is registered under this version; give the new one a new version")
        return self.version(manifest.name, manifest.version)

    def move(
        self, name: str, version: str, to: Stage, by_whom: str, reason: str, confirmed: Sequence[str] = ()
    ) -> ModelVersion:
        """Take one step. A release becomes the current one, and the current one before it is retired.

        Raises
        ------
        StageError
            The step is not allowed, or would leave the pipeline without a release.
        """
        with self._step(name) as connection:
            row = _require(connection, name, version)
            check_step(Stage(row["stage"]), to, confirmed=frozenset(confirmed))
            current = _current(connection, name)
            if to is Stage.RELEASED:
                if current not in (None, version, *_routed(connection, name)):
                    _set(connection, name, str(current), Stage.RETIRED, by_whom, f"gave way to {version}")
                _set(connection, name, version, to, by_whom, reason, confirmed)
                _speak(connection, name, version)
            elif current == version:
                raise StageError("this is the current release; release or roll back to another version first")
            else:
                _drop_rules_of(connection, name, version, by_whom)
                _set(connection, name, version, to, by_whom, reason, confirmed)
        return self.version(name, version)

    def roll_back(self, name: str, by_whom: str, reason: str, *, recall: bool = False) -> ModelVersion:
        """One step back: the release before the current one speaks again, at once.

        Parameters
        ----------
        recall : the version that is left is wrong, and becomes recalled instead of retired; where there is no earlier
            release, nobody speaks then

        Returns
        -------
        the version that speaks now; the recalled one where none does

        Raises
        ------
        StageError
            There is no earlier release that may speak, and nothing is recalled.
        """
        with self._step(name) as connection:
            current = _current(connection, name)
            earlier = connection.execute(
                """SELECT c.version FROM ai.stage_change c JOIN ai.model_version v USING (name, version)
                   WHERE c.name = %s AND c.version <> %s AND c.to_stage = 'released'
                     AND v.stage IN ('retired', 'released')
                   ORDER BY c.id DESC LIMIT 1""",
                (name, current or ""),
            ).fetchone()
            if current is None or (earlier is None and not recall):
                raise StageError("there is no earlier release to go back to")
            _set(connection, name, current, Stage.RECALLED if recall else Stage.RETIRED, by_whom, reason)
            _drop_rules_of(connection, name, current, by_whom)
            if earlier is None:  # a wrong version must not go on speaking because it is the only one
                _silence(connection, name)
            else:
                _set(connection, name, earlier["version"], Stage.RELEASED, by_whom, f"back from {current}: {reason}")
                _speak(connection, name, earlier["version"])
        return self.version(name, current if earlier is None else earlier["version"])

    def rules(self, name: str) -> tuple[Rule, ...]:
        """Routing rules of a pipeline, in order."""
        with self._connection() as connection:
            row = connection.execute("SELECT rules FROM ai.routing WHERE name = %s", (name,)).fetchone()
        return read_rules(row["rules"]) if row else ()

    def set_rules(self, name: str, rules: Sequence[Rule], by_whom: str) -> None:
        """Replace the routing rules of a pipeline.

        Raises
        ------
        RoutingError
            A rule names a version that nobody released.
        """
        with self._step(name) as connection:
            for number, rule in enumerate(rules, start=1):
                row = _find(connection, name, rule.version)
                ever = connection.execute(
                    "SELECT 1 FROM ai.stage_change WHERE name = %s AND version = %s AND to_stage = 'released'",
                    (name, rule.version),
                ).fetchone()
                if row is None or ever is None or row["stage"] == Stage.RECALLED:
                    raise RoutingError(f"rule {number}: version is not one that was released")
                if row["stage"] != Stage.RELEASED:
                    _set(connection, name, rule.version, Stage.RELEASED, by_whom, "named by a routing rule")
            _write_rules(connection, name, rules, by_whom)

    def open(self, version: ModelVersion) -> Manifest:
        """The package of a version, its signature checked.

        Raises
        ------
        ModelIntegrityError
            It is not there, or not what was registered.
        """
        folder = self._home / "models" / version.folder
        if not folder.is_dir():
            raise ModelIntegrityError(f"package {version.name} {version.version} is not in FORAMEN_HOME/models here")
        return open_package(folder, version.statement, signer(self._home))

    def take_in_what_came_with_the_software(self) -> None:
        """Register the software's own packages; a new one takes the place of an older one of its kind, not of yours."""
        for name in PIPELINES:
            folder = package_folder(name)
            manifest = read_package(folder)
            known = {item.version: item for item in self.versions(name)}
            if manifest.version in known and known[manifest.version].digest == manifest.digest:
                continue
            self.register(folder, WITH_THE_SOFTWARE, "came with the software")
            if name not in RELEASED_WITH_THE_SOFTWARE:
                continue
            current = self.current(name)
            if current is None or self._came_with_the_software(current):
                self._release_what_came(name, manifest.version, current)

    def record_shadow(
        self, run_id: str, shadow: ModelVersion, live_version: str, study_uid: str, comparison: dict[str, Any]
    ) -> None:
        """Keep what a shadow said beside the live version; harmless to repeat."""
        with self._connection() as connection:
            connection.execute(
                """INSERT INTO ai.shadow_run (run_id, name, version, live_version, study_instance_uid, comparison)
                   VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
                (run_id, shadow.name, shadow.version, live_version, study_uid, Jsonb(comparison)),
            )

    def shadow_runs(self, name: str, version: str) -> list[dict[str, Any]]:
        """What a shadow said, newest first: live version, time and comparison of each study."""
        sql = """SELECT live_version, study_instance_uid, at, comparison FROM ai.shadow_run
                 WHERE name = %s AND version = %s ORDER BY at DESC"""
        with self._connection() as connection:
            return list(connection.execute(sql, (name, version)))

    def _came_with_the_software(self, version: ModelVersion) -> bool:
        first = [item for item in self.history(version.name) if item.version == version.version][-1]
        return first.by_whom == WITH_THE_SOFTWARE

    def _release_what_came(self, name: str, version: str, current: ModelVersion | None) -> None:
        reason = "came with the software"
        with self._step(name) as connection:
            if current is not None:
                _set(connection, name, current.version, Stage.RETIRED, WITH_THE_SOFTWARE, f"gave way to {version}")
            _set(connection, name, version, Stage.RELEASED, WITH_THE_SOFTWARE, reason)
            _speak(connection, name, version)

    def _copy(self, folder: Path, manifest: Manifest) -> Path:
        """Copy the files that the manifest names, and its documents; complete or not at all."""
        target = self._home / "models" / f"{manifest.name}-{manifest.version}-{manifest.digest[:12]}"
        if target.is_dir():
            return target
        staged = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(mode=0o700, parents=True)
        names = ["manifest.yaml", "MODEL_CARD.md"]
        names += [name for name in ("RELEASE_CHECKLIST.md", SIGNATURE_FILE) if (folder / name).is_file()]
        names += [str(file.path.relative_to(folder)) for file in manifest.models.values()]
        for name in dict.fromkeys(names):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, staged / name)
        staged.rename(target)
        return target

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with psycopg.connect(self._url, row_factory=dict_row) as connection:
            yield connection

    @contextmanager
    def _step(self, name: str) -> Iterator[Connection]:
        """One transaction that holds the pipeline's lock."""
        with self._connection() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('ai.model:' || %s, 0))", (name,))
            yield connection


def _version(row: dict[str, Any]) -> ModelVersion:
    return ModelVersion(**{**row, "stage": Stage(row["stage"])})


def _find(connection: Connection, name: str, version: str) -> dict[str, Any] | None:
    sql = "SELECT digest, stage FROM ai.model_version WHERE name = %s AND version = %s"
    return connection.execute(sql, (name, version)).fetchone()


def _require(connection: Connection, name: str, version: str) -> dict[str, Any]:
    row = _find(connection, name, version)
    if row is None:
        raise StageError("no such version is registered")
    return row


def _current(connection: Connection, name: str) -> str | None:
    row = connection.execute("SELECT version FROM ai.current_release WHERE name = %s", (name,)).fetchone()
    return None if row is None else str(row["version"])


def _speak(connection: Connection, name: str, version: str) -> None:
    sql = """INSERT INTO ai.current_release VALUES (%s, %s)
             ON CONFLICT (name) DO UPDATE SET version = excluded.version"""
    connection.execute(sql, (name, version))


def _silence(connection: Connection, name: str) -> None:
    connection.execute("DELETE FROM ai.current_release WHERE name = %s", (name,))


def _set(
    connection: Connection,
    name: str,
    version: str,
    to: Stage,
    by_whom: str,
    reason: str,
    confirmed: Sequence[str] = (),
) -> None:
    before = _require(connection, name, version)["stage"]
    sql = "UPDATE ai.model_version SET stage = %s, stage_since = now() WHERE name = %s AND version = %s"
    connection.execute(sql, (to, name, version))
    _log(connection, name, version, before, to, by_whom, reason, confirmed)


def _log(
    connection: Connection,
    name: str,
    version: str,
    before: str | None,
    to: Stage,
    by_whom: str,
    reason: str,
    confirmed: Sequence[str] = (),
) -> None:
    if not by_whom.strip() or not reason.strip():
        raise StageError("a step needs who takes it and why")
    sql = """INSERT INTO ai.stage_change (name, version, from_stage, to_stage, by_whom, reason, confirmed)
             VALUES (%s, %s, %s, %s, %s, %s, %s)"""
    connection.execute(sql, (name, version, before, to, by_whom, reason, Jsonb(list(confirmed))))


def _routed(connection: Connection, name: str) -> set[str]:
    """Versions that routing rules name."""
    row = connection.execute("SELECT rules FROM ai.routing WHERE name = %s", (name,)).fetchone()
    return {rule.version for rule in read_rules(row["rules"])} if row else set()


def _drop_rules_of(connection: Connection, name: str, version: str, by_whom: str) -> None:
    """A version that no longer speaks is named by no rule: its studies go to the current release."""
    row = connection.execute("SELECT rules FROM ai.routing WHERE name = %s", (name,)).fetchone()
    if row is not None:
        rules = read_rules(row["rules"])
        _write_rules(connection, name, [rule for rule in rules if rule.version != version], by_whom)


def _write_rules(connection: Connection, name: str, rules: Sequence[Rule], by_whom: str) -> None:
    sql = """INSERT INTO ai.routing (name, rules, by_whom) VALUES (%s, %s, %s)
             ON CONFLICT (name) DO UPDATE SET rules = excluded.rules, by_whom = excluded.by_whom, at = now()"""
    connection.execute(sql, (name, Jsonb([rule.as_json() for rule in rules]), by_whom))
