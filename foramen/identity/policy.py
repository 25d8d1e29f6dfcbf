"""The policy engine: Rego files of `policies/`, evaluated in this process and cached.

Language: https://www.openpolicyagent.org/docs/latest/policy-language/ (Rego v1); engine: regorus (ADR 0024).
An answer depends on its question alone, so each is kept: the same question costs a look into a dictionary.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import orjson

from foramen.kernel.errors import InteropError

_CACHE_SIZE = 8192
_TEST = "_test.rego"
_local = threading.local()


class PolicyError(InteropError):
    """The policy gave no answer; nothing is allowed then."""


@cache
def sources() -> dict[str, str]:
    """Return the policy files by name, tests of the policy among them."""
    folder = resources.files("foramen.identity").joinpath("policies")
    found = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".rego")}
    return dict(sorted(found.items()))


def load(files: Mapping[str, str]) -> Any:
    """Return an engine that holds these files.

    Raises
    ------
    PolicyError
        A file is not valid Rego; its name is in the message.
    """
    from regorus import Engine

    engine = Engine()
    for name, source in files.items():
        try:
            engine.add_policy(name, source)
        except RuntimeError as error:
            raise PolicyError(f"{name} is not valid Rego") from error
    return engine


def _engine() -> Any:
    """Return this thread's engine: one holds one input, and may be used by its own thread only."""
    if not hasattr(_local, "engine"):
        _local.engine = load({name: text for name, text in sources().items() if not name.endswith(_TEST)})
    return _local.engine


@lru_cache(maxsize=_CACHE_SIZE)
def _evaluated(rule: str, question: bytes) -> bytes:
    engine = _engine()
    try:
        engine.set_input_json(question.decode())
        return str(engine.eval_rule_as_json(f"data.foramen.{rule}")).encode()
    except RuntimeError as error:
        raise PolicyError("The policy gave no answer") from error


def evaluate(rule: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a rule of the policy.

    Parameters
    ----------
    rule : name of a rule below ``data.foramen``, such as ``permissions.rights``
    question : the ``input`` of the rule, JSON

    Returns
    -------
    The answer, an object of its own.

    Raises
    ------
    PolicyError
        The policy gave no answer.
    """
    answer = orjson.loads(_evaluated(rule, orjson.dumps(question, option=orjson.OPT_SORT_KEYS)))
    if not isinstance(answer, dict):
        raise PolicyError("The policy gave no answer")
    return answer


@cache
def table(name: str) -> dict[str, Any]:
    """Return a table of `permissions.rego` (``permissions``, ``roles`` or ``grantable``); not to be changed.

    Raises
    ------
    PolicyError
        There is no such table.
    """
    return evaluate(f"permissions.{name}", {})


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One rule ``test_…`` of a policy's tests and how it ended; `fault` says what broke, not only failed."""

    file: str
    name: str
    passed: bool
    fault: str = ""


def run_tests(files: Mapping[str, str] | None = None) -> Iterator[PolicyTest]:
    """Run the rules ``test_…`` of all test files, as ``opa test`` does.

    Raises
    ------
    PolicyError
        A file is not valid Rego.
    """
    files = sources() if files is None else files
    engine = load(files)
    for file, source in files.items():
        package = re.search(r"^package (\S+)", source, re.MULTILINE)
        if not file.endswith(_TEST) or package is None:
            continue
        for name in dict.fromkeys(re.findall(r"^(test_\w+)", source, re.MULTILINE)):
            try:
                outcome, fault = engine.eval_rule(f"data.{package.group(1)}.{name}"), ""
            except RuntimeError as error:
                outcome, fault = None, str(error).split("Stack backtrace")[0].strip()
            yield PolicyTest(file, name, outcome is True, fault)
