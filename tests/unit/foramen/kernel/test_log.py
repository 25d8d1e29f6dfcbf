"""Nothing about a person reaches the log: fields are an allow-list."""

from __future__ import annotations

import subprocess
import sys


def test_unknown_fields_are_dropped() -> None:
    code = (
        "from foramen.kernel.log import configure_log, get_log;"
        "configure_log('INFO', 'test');"
        "get_log().info('patient read', patient_name='ZHANG^SAN', birth_date='1970-01-01', resource_type='Patient')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "patient read" in result.stderr
    assert '"resource_type": "Patient"' in result.stderr
    assert "ZHANG" not in result.stderr
    assert "1970" not in result.stderr


def test_an_exception_is_named_without_its_message() -> None:
    code = """
from foramen.kernel.log import configure_log, get_log
configure_log('INFO', 'test')
def read_patient():
    raise ValueError('ZHANG^SAN is not a date')
try:
    read_patient()
except ValueError:
    get_log().error('failed', exc_info=True)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "builtins.ValueError at <string>:5 read_patient" in result.stderr
    assert "ZHANG" not in result.stderr


def test_a_process_that_sets_up_no_log_keeps_the_rules_and_its_standard_output_clean() -> None:
    code = """
from foramen.kernel.log import get_log
get_log().info('patient read', patient_name='ZHANG^SAN', resource_type='Patient')
print('{}')
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "{}\n"
    assert '"resource_type": "Patient"' in result.stderr
    assert "ZHANG" not in result.stderr
