"""Arithmetic of room and retention; packing, byte by byte; which audit events are an access."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from dicomweb.lifecycle.at_rest import AtRest
from dicomweb.lifecycle.capacity import TB, Plan, StudySize, by_modality, forecast
from dicomweb.lifecycle.capacity_page import arithmetic
from dicomweb.lifecycle.last_access import study_read
from dicomweb.lifecycle.packing import CannotPackError, pack, restore
from dicomweb.lifecycle.retention import RetentionRules, keep_until, require_expired, strictest
from dicomweb.reconciliation.page import require_keeper
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.audit_event import audit_event
from foramen.kernel.errors import ConflictError, ForbiddenError
from tests.builders.dicom import encoded, series

RULES = RetentionRules(inpatient_years=30, outpatient_years=15, own_output_years=30)
SIZES = by_modality([StudySize("MR", 100, 100_000_000), StudySize("MR", 300, 300_000_000), StudySize("CT", 500, 10**9)])


def test_studies_are_summed_by_modality():
    ct, mr = SIZES
    assert (ct.modality, ct.studies, ct.mean_size) == ("CT", 1, 10**9)
    assert (mr.studies, mr.instances, mr.mean_size, mr.median_size, mr.largest) == (2, 400, 2e8, 2e8, 3e8)


def test_the_forecast_is_the_plain_product():
    plan = Plan(128, {"MR": 100, "CT": 50}, copies=1, reserve=0.0)
    found = forecast(0, SIZES, plan)
    assert found.per_day == 100 * 2e8 + 50 * 1e9
    assert found.years[0].added == pytest.approx(found.per_day * 365)
    assert found.days_left == int(128 * TB / found.per_day)
    assert [year.full for year in found.years].index(True) == found.days_left // 365


def test_copies_reserve_growth_and_compression_count():
    plain = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0))
    twice = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0, copies=2))
    half = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0, copies=2, compression=0.5))
    grown = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0, growth_per_year=0.2))
    assert twice.per_day == 2 * plain.per_day
    assert half.per_day == plain.per_day
    assert grown.days_left < plain.days_left
    assert forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.5)).usable == 64 * TB


def test_full_is_full_and_a_modality_that_was_never_measured_is_no_guess():
    assert forecast(200 * TB, SIZES, Plan(128, {"CT": 1})).days_left == 0
    assert forecast(0, SIZES, Plan(128, {})).days_left is None
    with pytest.raises(ValueError, match="XA"):
        forecast(0, SIZES, Plan(128, {"XA": 1}))


def test_retention_counts_years_from_the_day_on():
    assert keep_until("outpatient", date(2020, 2, 29), RULES) == date(2035, 3, 1)
    assert keep_until("inpatient", date(2020, 5, 1), RULES) == date(2050, 5, 1)
    require_expired("outpatient", date(2000, 1, 1), date(2015, 1, 1), RULES)
    with pytest.raises(ConflictError):
        require_expired("outpatient", date(2000, 1, 1), date(2014, 12, 31), RULES)
    with pytest.raises(ConflictError):
        require_expired("outpatient", None, date(2100, 1, 1), RULES)


def test_the_longest_period_wins_and_the_unknown_counts_as_the_longest():
    assert strictest(["outpatient", "inpatient"], RULES) == "inpatient"
    assert strictest([], RULES) == "inpatient"


def stored(folder: Path, values: np.ndarray, *, behind: bytes = b"", **attributes: object) -> Path:
    """A SYNTHETIC file with these pixels: (frames, rows, columns[, samples])."""
    dataset = series(1)[0]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape[:3]
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes() + behind
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    path = folder / "original"
    path.write_bytes(encoded(dataset))
    return path


COLOUR = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}


@pytest.mark.parametrize(
    ("shape", "kind", "attributes"),
    [
        ((1, 64, 64), "<u2", {}),
        ((3, 5, 7), "<i2", {}),
        ((1, 1, 1), "<u2", {}),
        ((2, 9, 4), "|u1", {}),
        ((1, 8, 8), "|i1", {}),
        ((2, 16, 12, 3), "|u1", {**COLOUR, "PlanarConfiguration": 0}),
        ((2, 16, 12, 3), "|u1", {**COLOUR, "PlanarConfiguration": 1}),
        ((1, 16, 16), "<u2", {"BitsStored": 12, "HighBit": 11}),  # With values beyond 12 bits all the same.
        ((1, 16, 16), "<u2", {"DataSetTrailingPadding": b"\0" * 50}),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"\x01\x02"])
def test_a_packed_file_comes_back_byte_by_byte(tmp_path: Path, shape, kind, attributes, behind):
    info = np.iinfo(kind)
    values = np.random.default_rng(1).integers(info.min, info.max, shape, dtype=np.dtype(kind), endpoint=True)
    path = stored(tmp_path, values, behind=behind, **attributes)
    assert pack(path, tmp_path / "packed") == "htj2k"
    assert restore(tmp_path / "packed", tmp_path / "again") == "htj2k"
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert (tmp_path / "packed").stat().st_mode & 0o077 == 0


def test_jpeg_2000_takes_what_the_first_codec_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = stored(tmp_path, np.arange(256, dtype="<u2").reshape(1, 16, 16))
    monkeypatch.setattr("imagecodecs.htj2k_encode", lambda *_, **__: 1 / 0)
    assert pack(path, tmp_path / "packed") == "j2k"
    restore(tmp_path / "packed", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    monkeypatch.setattr("imagecodecs.jpeg2k_decode", lambda _: np.zeros((16, 16), "<u2"))
    with pytest.raises(CannotPackError):  # A codec that gives something else back is none.
        pack(path, tmp_path / "packed")


def test_what_has_no_native_whole_words_stays_as_it_is(tmp_path: Path):
    values = np.zeros((1, 8, 8), "<u2")
    path = stored(tmp_path, values, Rows=9)  # Fewer pixels than the header says.
    with pytest.raises(CannotPackError):
        pack(path, tmp_path / "packed")
    path = stored(tmp_path, values, BitsAllocated=32)
    with pytest.raises(CannotPackError):
        pack(path, tmp_path / "packed")
    path.write_bytes(b"no DICOM")
    with pytest.raises(CannotPackError):
        pack(path, tmp_path / "packed")


def test_a_packed_file_that_was_cut_or_changed_is_not_restored(tmp_path: Path):
    pack(stored(tmp_path, np.arange(256, dtype="<u2").reshape(1, 16, 16)), tmp_path / "packed")
    content = (tmp_path / "packed").read_bytes()
    for broken in (content[:-1], content[:-40] + content[-30:], b"?" + content[1:], content[:20]):
        (tmp_path / "packed").write_bytes(broken)
        with pytest.raises((ValueError, OSError)):
            restore(tmp_path / "packed", tmp_path / "again")


def test_the_report_counts_what_lies_there_and_says_what_was_saved():
    found = AtRest(received=10_000_000_000, files=5, original=4_000_000_000, packed=1_000_000_000, unpacked=500_000_000)
    assert (found.saved, found.stored) == (3_000_000_000, 7_500_000_000)
    plan = Plan(128, {"MR": 1})
    lines = arithmetic(found, SIZES, plan, forecast(found.stored, SIZES, plan))
    assert [line for line in lines if "4.00 : 1" in line and "= 7.500 GB" in line]


@pytest.mark.parametrize(
    ("interaction", "status", "read"),
    [
        *(("retrieve-frames", 200, True), ("retrieve", 304, True), ("retrieve", 404, False), ("retrieve", 503, False)),
        *(("search", 200, False), ("store", 200, False), ("delete", 204, False)),
    ],
)
def test_an_access_is_what_was_given_out(interaction: str, status: int, read: bool):
    event = audit_event(
        interaction=interaction, source="dicomweb", status=status, recorded=datetime.now(UTC), trace_id="0" * 32,
        context=None, entity="urn:oid:1.2.3", patient="Patient/1",
    )  # fmt: skip
    assert study_read(event) == ("1.2.3" if read else None)


def test_the_drift_page_is_for_keepers_of_the_whole_archive():
    def context(scope: str, **values: object) -> AccessContext:
        return AccessContext("one", "app", parse_scopes(scope), scope, **values)  # type: ignore[arg-type]

    require_keeper(context("foramen/admin"))
    require_keeper(AccessContext("app", "app", parse_scopes("system/Task.u"), "system/Task.u"))
    require_keeper(context("user/Task.u", every_institution=True))
    for refused in (context("user/Task.u"), context("user/Task.r", every_institution=True), context("openid")):
        with pytest.raises(ForbiddenError):
            require_keeper(refused)
    with pytest.raises(ForbiddenError):
        require_keeper(context("patient/Task.u", patient="x", every_institution=True))
