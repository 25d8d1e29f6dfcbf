"""Dataset versions: immutable, complete, and nobody who was kept aside ever comes back into training."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_services.training.dataset_version import (
    DatasetError,
    DatasetVersion,
    compare,
    draw_splits,
    load,
    make_version,
    save,
)

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
patients = st.sets(st.integers(1, 5000).map(str), min_size=1, max_size=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """SYNTHETIC: forty patients with two files each, and a table that belongs to all."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for patient in range(1, 41):
        (data / "images" / f"{patient}_t1.png").write_bytes(f"t1 of {patient}".encode())
        (data / "images" / f"{patient}_t2.png").write_bytes(f"t2 of {patient}".encode())
    (data / "gradings.csv").write_text("SYNTHETIC")
    return data


def version_of(folder: Path, **changes: object) -> DatasetVersion:
    given = {"name": "lumbar", "licence": "CC BY 4.0", "source": "SYNTHETIC", "created_by": "dr-li"}
    return make_version(folder, **{**given, "created": "2026-11-23T00:00:00Z", **changes})  # type: ignore[arg-type]


def test_a_version_names_every_file_and_comes_back_as_it_was(folder: Path) -> None:
    version = version_of(folder)
    assert len(version.files) == 81
    assert {file.patient for file in version.files} == {None, *(str(number) for number in range(1, 41))}
    assert sorted(sum(version.splits.values(), ())) == sorted(str(number) for number in range(1, 41))
    assert all(version.patients_of(split) for split in ("train", "validation", "test"))
    path = save(folder, version)
    assert load(path) == version
    assert save(folder, version) == path
    assert compare(folder, version).none


def test_what_changed_since_is_told_by_name(folder: Path) -> None:
    version = version_of(folder)
    (folder / "images" / "1_t1.png").write_bytes(b"other")
    (folder / "images" / "2_t2.png").unlink()
    (folder / "images" / "99_t2.png").write_bytes(b"new")
    told = compare(folder, version)
    assert (told.changed, told.missing, told.added) == (
        ("images/1_t1.png",),
        ("images/2_t2.png",),
        ("images/99_t2.png",),
    )
    assert not told.none


def test_a_manifest_that_somebody_changed_is_refused(folder: Path) -> None:
    path = save(folder, version_of(folder))
    path.write_bytes(path.read_bytes().replace(b'"CC BY 4.0"', b'"none"'))
    with pytest.raises(DatasetError, match="changed"):
        load(path)
    path.write_bytes(b"{}")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(path)


@given(patients, patients, st.integers(0, 100))
def test_more_patients_move_nobody(first: set[str], more: set[str], seed: int) -> None:
    before, after = draw_splits(first, SHARES, seed), draw_splits(first | more, SHARES, seed)
    for split in before:
        assert set(before[split]) <= set(after[split])
    assert sorted(sum(after.values(), ())) == sorted(first | more)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"licence": " "},
        {"source": ""},
        {"created_by": ""},
        {"shares": {"train": 1.0}},
        {"shares": {"train": 0.5, "validation": 0.2, "test": 0.2}},
    ],
)
def test_what_a_version_must_say_is_asked_for(folder: Path, changes: dict[str, object]) -> None:
    with pytest.raises(DatasetError):
        version_of(folder, **changes)


def test_an_empty_folder_and_links_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no files"):
        version_of(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        version_of(tmp_path / "none")
    (tmp_path / "secret").symlink_to("/etc/hostname")
    with pytest.raises(DatasetError, match="link"):
        version_of(tmp_path)
