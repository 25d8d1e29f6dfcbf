"""What an evaluation knows besides its input: variables, clock, resolver, and how much it may still do.

https://hl7.org/fhir/R4/fhirpath.html#variables
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from fhir_server.fhirpath.errors import FhirPathCostError, FhirPathError
from fhir_server.fhirpath.node import Node
from fhir_server.fhirpath.values import Items, make

# An item costs about a microsecond, one that a criterion is evaluated for counts as four.
MAX_ITEMS = 2_000_000
MAX_TEXT = 4_000_000
REGEX_SECONDS = 0.5
_CONSTANTS = {
    "ucum": "http://unitsofmeasure.org",
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
}

T = TypeVar("T")
Resolve = Callable[[str], "dict[str, Any] | None"]
MemberOf = Callable[[Any, str], "bool | None"]
ConformsTo = Callable[[Node, str], "bool | None"]


@dataclass(slots=True)
class Context:
    """State of one evaluation; never shared between two."""

    root: Node
    resource: Node
    root_resource: Node
    variables: dict[str, Items] = field(default_factory=dict)
    resolve: Resolve | None = None
    member_of: MemberOf | None = None
    conforms_to: ConformsTo | None = None
    now: datetime | None = None
    strict: bool = False
    index: int | None = None
    total: Items | None = None
    budget: int = MAX_ITEMS
    memo: dict[int, Items] = field(default_factory=dict)
    regex_seconds: float = REGEX_SECONDS

    def spend(self, count: int) -> None:
        """Account for `count` items.

        Raises
        ------
        FhirPathCostError
            The evaluation has produced more items than it may.
        """
        self.budget -= count
        if self.budget < 0:
            raise FhirPathCostError(f"evaluation takes more than {MAX_ITEMS} items")

    def text(self, text: str) -> Items:
        """Collection of a computed text, which may not grow without end."""
        if len(text) > MAX_TEXT:
            raise FhirPathCostError(f"a text is longer than {MAX_TEXT} characters")
        self.spend(len(text) // 64)
        return make(text)

    def match(self, run: Callable[[float], T]) -> T:
        """Run a regular expression, given the seconds that all of them may still take.

        Raises
        ------
        FhirPathCostError
            It takes longer.
        """
        start = time.perf_counter()
        try:
            return run(self.regex_seconds)
        except TimeoutError:
            raise FhirPathCostError("a regular expression takes too long") from None
        finally:
            self.regex_seconds = max(self.regex_seconds - (time.perf_counter() - start), 0.001)

    def clock(self) -> datetime:
        """Return the time of the evaluation: always the same one."""
        if self.now is None:
            self.now = datetime.now(UTC)
        return self.now

    def variable(self, name: str, position: int) -> Items:
        """Value of ``%name``."""
        found = self.variables.get(name)
        if found is not None:
            return found
        if name == "context":
            return [self.root]
        if name == "resource":
            return [self.resource]
        if name == "rootResource":
            return [self.root_resource]
        if name in _CONSTANTS:
            return make(_CONSTANTS[name])
        if name.startswith("vs-"):
            return make("http://hl7.org/fhir/ValueSet/" + name[3:])
        if name.startswith("ext-"):
            return make("http://hl7.org/fhir/StructureDefinition/" + name[4:])
        raise FhirPathError(f"there is no variable %{name[:40]}", position)
