"""The conformance page says what the tests prove, all of it, and every transaction that is offered is on it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dicomweb.conformance.transactions import TRANSACTIONS
from dicomweb.routes import ROUTES

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_conformance_page.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_conformance_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tests_say(script: ModuleType) -> None:
    written = script.PAGE.read_text(encoding="utf-8")
    assert written == script.page(script.proofs()), "stale: run `python scripts/write_conformance_page.py`"


def test_every_transaction_that_is_offered_has_a_test(script: ModuleType) -> None:
    proved = {proof.section for proof in script.proofs() if proof.part == "PS3.18"}
    offered = {TRANSACTIONS[route.handler].section for route in ROUTES} - {""}
    missing = [one for one in sorted(offered) if not any(f"{got}.".startswith(f"{one}.") for got in proved)]
    assert not missing, f"PS3.18 sections offered and not tested: {missing}"


def test_every_handler_is_described() -> None:
    assert {route.handler for route in ROUTES} <= set(TRANSACTIONS)


def test_a_text_without_a_section_is_found(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        'import pytest\npytestmark = pytest.mark.requirement("PS3.18")\ndef test_x(): ...\n'
    )
    with pytest.raises(ValueError, match="names no section"):
        script.proofs(tmp_path)


def test_module_class_and_function_marks_count(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import pytest\npytestmark = [pytest.mark.system, pytest.mark.requirement('PS3.4 CC.2.4: a')]\n"
        "@pytest.mark.requirement('PS3.18 10.5.3: b')\ndef test_x(): ...\n"
        "class TestY:\n    @pytest.mark.requirement('rfc6750')\n    def test_z(self): ...\n"
    )
    found = [(proof.part, proof.section, proof.clause, proof.test.split("::")[1]) for proof in script.proofs(tmp_path)]
    assert found == [
        ("PS3.18", "10.5.3", "b", "test_x"),
        ("PS3.4", "CC.2.4", "a", "test_x"),
        ("PS3.4", "CC.2.4", "a", "test_z"),
    ]
