"""UCUM: grammar, canonical values, special units. https://ucum.org/ucum"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminology import systems, ucum


@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [
        (5, "mm", (0.005, "m")),
        (0.5, "cm", (0.005, "m")),
        (37, "Cel", (310.15, "K")),
        (212, "[degF]", (373.15, "K")),
        (80, "[degRe]", (373.15, "K")),
        (120, "mm[Hg]", (15998640.0, "g.m-1.s-2")),
        (1, "kPa", (1_000_000.0, "g.m-1.s-2")),
        (1, "mmol/L", (6.02214076e23, "m-3")),
        (1, "10*9/L", (1e12, "m-3")),
        (50, "%", (0.5, "1")),
        (3, "{score}", (3.0, "1")),
        (2, "/min", (2 / 60, "s-1")),
        (7.4, "[pH]", (10**-7.4 * 6.02214076e23 * 1000, "m-3")),
        (20, "dB", (100.0, "1")),
        (180, "deg", (3.141592653589793, "rad")),
        (2, "[iU]/L", (2000.0, "[iU].m-3")),
        (2, "[IU]/L", (2000.0, "[iU].m-3")),
        (1, "kg.m/s2", (1000.0, "g.m.s-2")),
        (1, "L/(min.m2)", (1e-3 / 60, "m.s-1")),
        (1, "mL/min/{1.73_m2}", (1e-6 / 60, "m3.s-1")),
        (1, "U/(10.g){feces}", (1e-6 * 6.02214076e23 / 60 / 10, "g-1.s-1")),
        (1, "10*-6", (1e-6, "1")),
        (1, "1.5", (5.0, "1")),  # The dot multiplies, also between numbers.
        (1, "g/cm-2", (1e-4, "g.m2")),
    ],
)
def test_values_in_base_units(value: float, code: str, expected: tuple[float, str]) -> None:
    found = ucum.canonical(value, code)
    assert found is not None
    assert found[1] == expected[1]
    assert found[0] == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize(
    "code",
    [
        *(
            "",
            "mcg",
            "mEq",
            "TAB",
            "month",
            "tbl",
            "ea",
            "drop",
            "ml/hr",
            "mmHg",
            "2m",
            "m ",
            " m",
            "/",
            "m.",
            "(m",
            "m)",
        ),
        *("m//s", "Cel/min", "Cel2", "m0", "0", "-1", "m{", "{m", "{中}", "µm", "mm\x00", "kin", "m" * 500),
        *("(" * 50 + "m" + ")" * 50, "m999", "10*99999"),
    ],
)
def test_what_is_no_unit(code: str) -> None:
    assert ucum.canonical(1, code) is None
    assert ucum.display(code) is None


def test_every_unit_of_the_table_has_a_canonical_form() -> None:
    units, prefixes, _ = ucum._tables()
    assert len(units) > 300
    assert not [code for code in units if ucum.canonical(1, code) is None]
    metric = [code for code, unit in units.items() if unit.metric]
    assert not [f"{p}{code}" for p in prefixes for code in metric if ucum.parse(f"{p}{code}") is None]


def test_dimensions_decide_what_can_be_compared() -> None:
    assert ucum.is_comparable("mm[Hg]", "kPa")
    assert ucum.is_comparable("Cel", "K")
    assert not ucum.is_comparable("[iU]", "[arb'U]"), "arbitrary units are comparable with nothing but themselves"
    assert not ucum.is_comparable("mm", "g")
    assert not ucum.is_comparable("mm", "nonsense")


@given(st.integers(-(10**12), 10**12), st.integers(-9, 9))
def test_the_same_length_in_another_unit_is_the_same_number(digits: int, exponent: int) -> None:
    millimetres, centimetres = f"{digits}e{exponent}", f"{digits}e{exponent - 1}"
    assert ucum.canonical(float(millimetres), "mm") == ucum.canonical(float(centimetres), "cm")


@given(st.text(alphabet="mgLsK%[]{}()./*^+-0123456789'_HgCelkuU", max_size=30))
def test_no_text_breaks_the_parser(code: str) -> None:
    found = ucum.canonical(1.5, code)
    assert found is None or ucum.parse(found[1]) is not None, "a canonical code is itself a unit"


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_breaks_the_conversion(value: float) -> None:
    for code in ("mm", "Cel", "[pH]", "Np", "Ym10"):
        found = ucum.canonical(value, code)
        assert found is None or found[0] == found[0]


def _units(resource: Any) -> set[str]:
    if isinstance(resource, list):
        return set().union(*(_units(item) for item in resource)) if resource else set()
    if not isinstance(resource, dict):
        return set()
    own = {resource["code"]} if resource.get("system") == systems.UCUM and "code" in resource else set()
    return own.union(*(_units(item) for item in resource.values()))


@pytest.mark.fhir_definitions
def test_units_of_the_official_examples(test_data: Path) -> None:
    found: set[str] = set()
    with tarfile.open(test_data.parent / "fhir" / "examples-r4.tgz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".json") else None
            text = file.read() if file is not None else b""
            if b"unitsofmeasure" in text:
                found |= _units(json.loads(text))
    # The examples say UCUM here, but the table does not have them.
    wrong = {"TAB", "drop", "ea", "mEq", "mcg", "ml/hr", "month", "tbl"}
    assert len(found) > 40
    assert {code for code in found if ucum.canonical(1, code) is None} == wrong
