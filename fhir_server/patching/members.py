"""Members of JSON objects where a primitive's id and extensions lie beside it in `_name`, lists being aligned.

https://hl7.org/fhir/R4/json.html#primitive
"""

from __future__ import annotations

from typing import Any

Primitive = tuple[Any, Any]
"""A value and what belongs into the `_name` member; either may be None."""


def below(container: dict[str, Any], name: str, index: int | None) -> dict[str, Any] | None:
    """Return the object of a member: of a primitive, that of its id and extensions (made when missing)."""
    found = _item(container.get(name), index)
    if isinstance(found, dict):
        return found
    more = _item(container.get(f"_{name}"), index)
    if isinstance(more, dict):
        return more
    if found is None:
        return None
    made: dict[str, Any] = {}
    put(container, name, index, (found, made))
    return made


def _item(value: Any, index: int | None) -> Any:
    if index is None:
        return value
    return value[index] if isinstance(value, list) and index < len(value) else None


def size(container: dict[str, Any], name: str) -> int:
    """Length of a list, its `_name` counted too."""
    lists = (container.get(name), container.get(f"_{name}"))
    return max(len(found) if isinstance(found, list) else 0 for found in lists)


def _aligned(container: dict[str, Any], name: str, needed: bool) -> list[Any] | None:
    found = container.get(name)
    if found is None and not needed:
        return None
    if not isinstance(found, list):
        found = []
        container[name] = found
    return found


def insert(container: dict[str, Any], name: str, index: int, item: Primitive) -> None:
    """Insert into a list."""
    length = size(container, name)
    for key, value in ((name, item[0]), (f"_{name}", item[1])):
        found = _aligned(container, key, value is not None)
        if found is not None:
            found += [None] * (length - len(found))
            found.insert(index, value)


def take(container: dict[str, Any], name: str, index: int | None) -> Primitive:
    """Remove a member or an item of a list, and return it."""
    if index is None:
        return container.pop(name, None), container.pop(f"_{name}", None)
    taken = []
    for key in (name, f"_{name}"):
        found = container.get(key)
        inside = isinstance(found, list) and index < len(found)
        taken.append(found.pop(index) if inside and found is not None else None)
        if isinstance(found, list) and all(item is None for item in found):
            del container[key]
    return taken[0], taken[1]


def put(container: dict[str, Any], name: str, index: int | None, item: Primitive) -> None:
    """Set a member, or an item of a list that is there."""
    for key, value in ((name, item[0]), (f"_{name}", item[1])):
        if index is None:
            if value is not None:
                container[key] = value
            else:
                container.pop(key, None)
            continue
        length = size(container, name)
        found = _aligned(container, key, value is not None)
        if found is not None:
            found += [None] * (length - len(found))
            found[index] = value
            if all(entry is None for entry in found):
                del container[key]


def rename(container: dict[str, Any], old: str, new: str) -> None:
    """Give a member another name in its place (another type of a choice)."""
    names = {old: new, f"_{old}": f"_{new}"}
    renamed = {names.get(key, key): value for key, value in container.items()}
    container.clear()
    container.update(renamed)
