"""Lay a differential over the snapshot of its base: the snapshot of a profile that comes without one. Pure.

https://hl7.org/fhir/R4/profiling.html#snapshot. For constraints (profiles, extensions); specialisations are not made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foramen.kernel.errors import InvalidResourceError

Elements = list[dict[str, Any]]
_CHOICES = ("fixed", "pattern", "minValue", "maxValue", "default")


def generate_snapshot(
    differential: Elements, base: Elements, elements_of: Callable[[str], Elements | None]
) -> Elements:
    """Return the elements of the snapshot.

    Parameters
    ----------
    differential : `StructureDefinition.differential.element`, in any order that has parents first
    base : elements of the base's snapshot
    elements_of : elements of a data type (by code) or profile (by canonical), to open an element of that type

    Raises
    ------
    InvalidResourceError
        The differential speaks of an element that the base does not have.
    """
    work = _Snapshot(base, elements_of)
    for element in differential:
        work.lay(element)
    return work.elements


class _Snapshot:
    def __init__(self, base: Elements, elements_of: Callable[[str], Elements | None]) -> None:
        self.elements: Elements = [{**element, "id": element.get("id") or element["path"]} for element in base]
        self._elements_of = elements_of

    def lay(self, changed: dict[str, Any]) -> None:
        """Lay one element of the differential over what is there."""
        identity = changed.get("id") or _identity(changed)
        place = self._ensure(identity, changed)
        target = self.elements[place]
        merged = {**target, **{k: v for k, v in changed.items() if k not in ("id", "path", "constraint")}}
        for name in changed:
            if name.startswith(_CHOICES):  # One value takes the place of another, also of another type.
                stem = next(stem for stem in _CHOICES if name.startswith(stem))
                merged = {k: v for k, v in merged.items() if k == name or not k.startswith(stem)}
        if "constraint" in changed:
            merged["constraint"] = [*target.get("constraint", []), *changed["constraint"]]
        self.elements[place] = merged

    def _index(self, identity: str) -> int | None:
        return next((i for i, element in enumerate(self.elements) if element["id"] == identity), None)

    def _end(self, place: int) -> int:
        """Place after an element, everything in it, and its slices."""
        identity = self.elements[place]["id"]
        end = place + 1
        while end < len(self.elements) and self.elements[end]["id"].startswith((f"{identity}.", f"{identity}:")):
            end += 1
        return end

    def _ensure(self, identity: str, changed: dict[str, Any]) -> int:
        place = self._index(identity)
        if place is not None:
            return place
        owner, _, last = identity.rpartition(".")
        if not owner:
            raise _unknown(changed)
        parent = self._ensure(owner, changed)
        # ``valueQuantity`` is ``value[x]:valueQuantity`` here: what is below it goes by that name.
        owner = self.elements[parent]["id"]
        identity = f"{owner}.{last}"
        name, colon, piece = last.partition(":")
        if colon:
            known = self._index(identity)
            if known is not None:
                return known
            return self._add_slice(self._ensure(f"{owner}.{name}", changed), identity, piece)
        place = self._index(identity)
        if place is None:
            self._open(parent)
            place = self._index(identity)
        if place is None:
            place = self._typed_choice(owner, name)
        if place is None:
            raise _unknown(changed)
        return place

    def _add_slice(self, sliced: int, identity: str, piece: str) -> int:
        base = self.elements[sliced]
        end = self._end(sliced)
        copy = {k: v for k, v in base.items() if k not in ("slicing", "id", "min")}
        self.elements.insert(end, {**copy, "id": identity, "sliceName": piece, "min": 0})
        return end

    def _open(self, place: int) -> None:
        """Add the children of an element: those of what it slices, or of its type."""
        element = self.elements[place]
        identity = element["id"]
        sliced = identity.rpartition(":")[0] if ":" in identity.rpartition(".")[2] else ""
        inner: Elements = []
        origin = ""
        if sliced:
            origin = sliced
            inner = [e for e in self.elements if e["id"].startswith(f"{sliced}.")]
        if not inner:
            origin, inner = self._of_type(element)
        opened = [
            {
                **e,
                "id": identity + e["id"].removeprefix(origin),
                "path": element["path"] + e["path"].removeprefix(_path(origin)),
            }
            for e in inner
        ]
        self.elements[place + 1 : place + 1] = opened

    def _of_type(self, element: dict[str, Any]) -> tuple[str, Elements]:
        if "contentReference" in element:
            origin = element["contentReference"].rpartition("#")[2]
            return origin, [e for e in self.elements if e["id"].startswith(f"{origin}.")]
        kinds = element.get("type", [])
        if len(kinds) != 1:
            return "", []
        profiles = kinds[0].get("profile", [])
        found = self._elements_of(profiles[0]) if len(profiles) == 1 else None
        found = found or self._elements_of(kinds[0]["code"])
        if not found:
            return "", []
        return found[0].get("id") or found[0]["path"], [{**e, "id": e.get("id") or e["path"]} for e in found[1:]]

    def _typed_choice(self, owner: str, name: str) -> int | None:
        """``valueQuantity`` for ``value[x]:valueQuantity``: the choice sliced by type."""
        for place, element in enumerate(self.elements):
            parent, _, last = element["id"].rpartition(".")
            stem = last.removesuffix("[x]")
            if parent != owner or stem == last or not name.startswith(stem):
                continue
            kind = next(
                (k for k in element.get("type", []) if stem + k["code"][0].upper() + k["code"][1:] == name), None
            )
            if kind is None:
                continue
            element.setdefault("slicing", {"discriminator": [{"type": "type", "path": "$this"}], "rules": "open"})
            added = self._add_slice(place, f"{element['id']}:{name}", name)
            self.elements[added]["type"] = [kind]
            return added
        return None


def _path(identity: str) -> str:
    return ".".join(part.partition(":")[0] for part in identity.split("."))


def _identity(element: dict[str, Any]) -> str:
    return f"{element['path']}:{element['sliceName']}" if element.get("sliceName") else str(element["path"])


def _unknown(element: dict[str, Any]) -> InvalidResourceError:
    text = "The differential speaks of an element that its base does not have"
    where = f"StructureDefinition.differential.element.where(path='{element.get('path')}')"
    return InvalidResourceError(text, issue_code="structure", expression=(where,))
