"""Whether a code belongs to a value set or a code system: yes, no, or it cannot be said.

https://hl7.org/fhir/R4/valueset-operation-validate-code.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foramen.kernel.errors import InvalidRequestError
from terminology.code_systems import CodeSystem
from terminology.evaluate import Evaluator, UnanswerableError
from terminology.model import Concept, Validation
from terminology.predicates import AllOf, AnyOf, Codes, Everything, Not, Predicate, listed_displays
from terminology.resolve import Resolver, run_now
from terminology.syntax_systems import SYNTAX_SYSTEMS, three_valued_all, three_valued_any
from terminology.value_sets import Key, Rules

_UNKNOWN_SYSTEM = "The code system is not known here, so the code cannot be checked"
_UNKNOWN_SET = "The value set is not known here, so the code cannot be checked"
_NOT_SAYABLE = "A part of the value set is not known here, so it cannot be said whether the code belongs to it"
Test = Callable[[str], bool | None]


class Membership:
    """Answers for single codes."""

    def __init__(self, resolver: Resolver, evaluator: Evaluator) -> None:
        self._resolver = resolver
        self._evaluator = evaluator
        self._tests: dict[str, dict[str, Test]] = {}

    def contains_now(self, value_set: str, system: str, code: str) -> bool | None:
        """See `Terminology.contains`."""
        tests = self._tests.get(value_set)
        if tests is None:
            tests = self._build_tests(value_set)
            if tests is None:
                return None
            self._tests[value_set] = tests
        test = tests.get(system)
        return False if test is None else test(code)

    def _build_tests(self, value_set: str) -> dict[str, Test] | None:
        rules = self._resolver.library_rules(value_set)
        if rules is None or rules.incomplete or rules.unsure:
            return None
        tests: dict[str, Test] = {}
        for (system, version), predicate in rules.predicates.items():
            if system in tests:
                return None  # Two versions of one system: rare, left to `validate`.
            tests[system] = self._test(system, version, predicate)
        return tests

    def _test(self, system: str, version: str, predicate: Predicate) -> Test:
        grammar = SYNTAX_SYSTEMS.get(system)
        if grammar is not None:
            return lambda code: False if grammar.display(code) is None else grammar.holds(predicate, code)
        known = self._resolver.library.code_system(system, version or None)
        if known is None or known.content != "complete":
            return lambda code: from_lists(predicate, code)
        try:
            numbers = run_now(self._evaluator.numbers(known, predicate))
        except UnanswerableError:
            return lambda _: None
        listed = frozenset(code for code in _listed_codes(predicate) if from_lists(predicate, code))

        def test(code: str) -> bool:
            number = known.number(code)
            return code in listed if number is None else number in numbers

        return test

    async def validate(
        self,
        value_set: str | None,
        system: str | None,
        code: str,
        display: str | None,
        version: str | None,
        resource: dict[str, Any] | None,
    ) -> Validation:
        """See `Terminology.validate_code`."""
        if resource is not None and resource.get("resourceType") == "CodeSystem":
            found = self._resolver.stored(resource)
            return await self._in_system(found, found.url, code, display)
        if value_set is None and resource is None:
            return await self._in_any_system(system, code, display, version)
        if resource is None and version is None and display is None and system is not None and value_set is not None:
            known = self.contains_now(value_set, system, code)
            if known is not None:
                return await self._plain(known, system, code)
        rules = await (self._resolver.rules_of(resource) if resource else self._resolver.rules(value_set or ""))
        if rules is None:
            return Validation(None, _UNKNOWN_SET)
        return await self._in_rules(rules, system, code, display, version)

    async def _plain(self, known: bool, system: str, code: str) -> Validation:
        if not known:
            return Validation(False, "The code is not in the value set", system=system)
        memory = self._resolver.library.code_system(system)
        number = memory.number(code) if memory is not None else None
        name = memory.concept(number).display if memory is not None and number is not None else None
        return Validation(True, display=name, system=system)

    async def _in_any_system(
        self, system: str | None, code: str, display: str | None, version: str | None
    ) -> Validation:
        if system is None:
            raise InvalidRequestError("A code needs its system, or a value set", issue_code="required")
        grammar = SYNTAX_SYSTEMS.get(system)
        if grammar is not None:
            name = grammar.display(code)
            message = "" if name else "The code does not follow the grammar of its system"
            return Validation(name is not None, message, name, system)
        found = await self._resolver.code_system(system, version)
        if found is None:
            return Validation(None, _UNKNOWN_SYSTEM, system=system)
        return await self._in_system(found, system, code, display)

    async def _in_system(self, found: CodeSystem, system: str, code: str, display: str | None) -> Validation:
        number = (await found.find([code])).get(code)
        if number is None and found.content != "complete":
            message = "The code is not in the part of the code system that is known here"
            return Validation(None, message, system=system, version=found.version)
        if number is None:
            return Validation(False, "The code is not in the code system", system=system, version=found.version)
        concept = (await found.concepts([number]))[0]
        return _named(Validation(True, "", concept.display, system, found.version), concept, None, display)

    async def _in_rules(
        self, rules: Rules, system: str | None, code: str, display: str | None, version: str | None
    ) -> Validation:
        states: list[bool | None] = []
        for key, predicate in rules.predicates.items():
            if system not in (None, key[0]) or (version and key[1] and version != key[1]):
                continue
            state = await self._member((key[0], key[1] or version or ""), predicate, code)
            if state and rules.unsure:
                state = None
            if state:
                return await self._name((key[0], key[1] or version or ""), predicate, code, display)
            states.append(state)
        if rules.incomplete:
            states.append(None)
        if three_valued_any(states) is None:
            return Validation(None, _NOT_SAYABLE, system=system)
        return Validation(False, "The code is not in the value set", system=system)

    async def _member(self, key: Key, predicate: Predicate, code: str) -> bool | None:
        grammar = SYNTAX_SYSTEMS.get(key[0])
        if grammar is not None:
            return False if grammar.display(code) is None else grammar.holds(predicate, code)
        listed = from_lists(predicate, code)
        if listed is not None:
            return listed
        found = await self._resolver.code_system(key[0], key[1] or None)
        if found is None:
            return None
        number = (await found.find([code])).get(code)
        if number is None:
            return False if found.content == "complete" else None
        try:
            return number in await self._evaluator.numbers(found, predicate)
        except UnanswerableError:
            return None

    async def _name(self, key: Key, predicate: Predicate, code: str, display: str | None) -> Validation:
        grammar = SYNTAX_SYSTEMS.get(key[0])
        listed = listed_displays(predicate).get(code)
        if grammar is not None:
            return _named(Validation(True, "", grammar.display(code), key[0]), None, listed, display)
        found = await self._resolver.code_system(key[0], key[1] or None)
        number = (await found.find([code])).get(code) if found is not None else None
        if found is None or number is None:
            return _named(Validation(True, "", listed, key[0], key[1] or None), None, listed, display)
        concept = (await found.concepts([number]))[0]
        return _named(Validation(True, "", listed or concept.display, key[0], found.version), concept, listed, display)


def _named(found: Validation, concept: Concept | None, listed: str | None, display: str | None) -> Validation:
    """Check the display a client sent, apart from case and white space, against all names of the concept."""
    if display is None or (concept is None and listed is None):
        return found
    same = listed is not None and " ".join(listed.split()).casefold() == " ".join(display.split()).casefold()
    if same or (concept is not None and concept.answers_to(display)):
        return found
    return Validation(False, "The display is not a name of the code", found.display, found.system, found.version)


def from_lists(predicate: Predicate, code: str) -> bool | None:
    """Decide from the enumerations of a predicate alone; None when it needs the code system."""
    match predicate:
        case Codes(listed):
            return any(code == known for known, _ in listed)
        case Not(part):
            found = from_lists(part, code)
            return None if found is None else not found
        case AnyOf(parts):
            return three_valued_any([from_lists(part, code) for part in parts])
        case AllOf(parts):
            return three_valued_all([from_lists(part, code) for part in parts])
        case Everything():
            return None
    return None


def _listed_codes(predicate: Predicate) -> set[str]:
    match predicate:
        case Codes(listed):
            return {code for code, _ in listed}
        case AnyOf(parts) | AllOf(parts):
            return {code for part in parts for code in _listed_codes(part)}
    return set()
