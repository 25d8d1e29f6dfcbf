"""JSON Patch by the examples of RFC 6902 appendix A, and what FHIR adds: exact numbers, bounded work."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.patching.exact_json import dump, equal, load, prune
from fhir_server.patching.json_patch import parse_json_patch
from foramen.kernel.errors import InteropError

RFC_6902 = [
    ("A.1", {"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ("A.2", {"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "q"}], {"foo": ["bar", "q", "baz"]}),
    ("A.3", {"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ("A.4", {"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ("A.5", {"baz": "q", "foo": "b"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo", "foo": "b"}),
    (
        "A.6",
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        "A.7",
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        "A.8",
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    (
        "A.10",
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    ("A.11", {"foo": "b"}, [{"op": "add", "path": "/baz", "value": "q", "xyz": 123}], {"foo": "b", "baz": "q"}),
    ("A.14", {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    (
        "A.16",
        {"foo": ["bar"]},
        [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
        {"foo": ["bar", ["abc", "def"]]},
    ),
    ("replace the whole", {"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ("empty member name", {"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
    (
        "copy is a copy",
        {"a": {"b": 1}},
        [
            {"op": "copy", "from": "/a", "path": "/c"},
            {"op": "replace", "path": "/c/b", "value": 2},
        ],
        {"a": {"b": 1}, "c": {"b": 2}},
    ),
    ("test by value", {"a": 1.0}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1.0}),
]
REFUSED = [
    ("A.9 test", {"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], 409),
    ("A.12 no parent", {"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], 422),
    ("A.15 string and number", {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], 409),
    ("true is not 1", {"a": True}, [{"op": "test", "path": "/a", "value": 1}], 409),
    ("index past the end", {"a": [1]}, [{"op": "add", "path": "/a/2", "value": 1}], 422),
    ("leading zero", {"a": [1, 2]}, [{"op": "remove", "path": "/a/01"}], 422),
    ("a string is no list", {"a": "xyz"}, [{"op": "test", "path": "/a/0", "value": "x"}], 422),
    ("minus names nothing", {"a": [1]}, [{"op": "remove", "path": "/a/-"}], 422),
    ("into itself", {"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a/b"}], 422),
    ("replace what is not there", {}, [{"op": "replace", "path": "/a", "value": 1}], 422),
    ("no value", {}, [{"op": "add", "path": "/a"}], 400),
    ("no from", {}, [{"op": "copy", "path": "/a"}], 400),
    ("unknown op", {}, [{"op": "merge", "path": "/a", "value": 1}], 400),
    ("op is no text", {}, [{"op": ["add"], "path": "/a", "value": 1}], 400),
    ("bad pointer", {}, [{"op": "add", "path": "a", "value": 1}], 400),
    ("bad escape", {}, [{"op": "add", "path": "/~2", "value": 1}], 400),
    ("no list", {}, {"op": "add", "path": "/a", "value": 1}, 400),
]


def apply(document: Any, patch: Any, max_bytes: int = 10_000) -> Any:
    found = parse_json_patch(orjson.dumps(patch), 100).apply(load(orjson.dumps(document)), "Patient", max_bytes)
    return orjson.loads(dump(found))


@pytest.mark.parametrize(("document", "patch", "expected"), [c[1:] for c in RFC_6902], ids=[c[0] for c in RFC_6902])
def test_applies(document: Any, patch: Any, expected: Any) -> None:
    assert apply(document, patch) == expected


@pytest.mark.parametrize(("document", "patch", "status"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refuses(document: Any, patch: Any, status: int) -> None:
    with pytest.raises(InteropError) as caught:
        apply(document, patch)
    assert caught.value.status == status


def test_numbers_keep_their_text() -> None:
    text = b'{"a":1.00,"b":[1e2,-0,0.10,123456789012345678901234567890]}'
    patch = b'[{"op":"copy","from":"/b","path":"/c"},{"op":"add","path":"/d","value":5.50}]'
    found = dump(parse_json_patch(patch, 10).apply(load(text), "Observation", 10_000))
    numbers = b"[1e2,-0,0.10,123456789012345678901234567890]"
    assert found == b'{"a":1.00,"b":' + numbers + b',"c":' + numbers + b',"d":5.50}'


def test_a_copy_bomb_is_stopped_before_it_grows() -> None:
    bomb = [{"op": "copy", "from": "/a", "path": "/a/-"} for _ in range(60)]
    with pytest.raises(InteropError) as caught:
        apply({"a": ["x" * 100]}, bomb, max_bytes=100_000)
    assert caught.value.status == 413


def test_too_many_operations() -> None:
    with pytest.raises(InteropError) as caught:
        parse_json_patch(orjson.dumps([{"op": "test", "path": "", "value": 1}] * 101), 100)
    assert caught.value.issue_code == "too-costly"


def test_a_fault_names_the_element_but_no_value() -> None:
    with pytest.raises(InteropError) as caught:
        apply({"name": [{}]}, [{"op": "test", "path": "/name/0/given/Anna Muster", "value": "Geheim"}])
    issue = caught.value.issues[0]
    assert issue.expression == ("Patient.name[0].given",)
    assert "Anna" not in issue.diagnostics
    assert "Geheim" not in issue.diagnostics


def test_prune_takes_out_what_is_left_empty() -> None:
    document = {"a": [], "b": {"c": {}}, "d": [{}, {"e": 1}], "f": [None, "x"], "g": [None], "h": 0}
    assert prune(document) == {"d": [{"e": 1}], "f": [None, "x"], "h": 0}
    assert prune({"_given": [{}, {"id": "a"}], "_x": [{}]}) == {"_given": [None, {"id": "a"}]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_equal_is_equality_of_json(left: Any, right: Any) -> None:
    assert equal(left, left)
    assert equal(left, right) == equal(right, left)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=5), JSON)
def test_add_then_remove_changes_nothing(document: dict[str, Any], value: Any) -> None:
    name = "added"
    document.pop(name, None)
    steps = [{"op": "add", "path": f"/{name}", "value": value}, {"op": "remove", "path": f"/{name}"}]
    body = dump(document) if _is_plain(document) and _is_plain(value) else None
    if body is None:
        return
    found = parse_json_patch(dump(steps), 10).apply(load(body), "Patient", 1_000_000)
    assert dump(found) == dump(load(body))


def _is_plain(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:  # lone surrogates, integers of more than 64 bits
        return False
    return True
