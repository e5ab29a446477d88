import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ta_fast.check import MAX_MESSAGE, MAX_PROBLEMS, argument_problems

OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n": 1}, None),
        ({"n": "x"}, "n: "),
        ({}, '"n" is a required property'),
        ([1], "must be a JSON object, not list"),
        (None, "not NoneType"),
        ("text", "not str"),
    ],
)
def test_arguments_are_checked_against_the_schema(arguments: Any, says: str | None) -> None:
    """The problem names the place; what fits has none."""
    problems = argument_problems(OBJECT, arguments)
    assert problems == [] if says is None else says in problems[0]


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"properties": 7}, {"$ref": "#/no/such"}])
def test_broken_schema_lets_nothing_through(schema: dict[str, Any]) -> None:
    """What cannot be checked is rejected, with the reason."""
    assert "schema cannot be used" in argument_problems(schema, {"a": 1})[0]


def test_references_are_never_fetched() -> None:
    """A schema that points elsewhere is refused at once: no request leaves the process."""
    started = time.monotonic()
    problems = argument_problems({"$ref": "http://192.0.2.1/schema.json"}, {})
    assert "schema cannot be used" in problems[0]
    assert time.monotonic() - started < 5


def test_problems_are_bounded() -> None:
    """Neither many violations nor huge values make a huge rejection."""
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    problems = argument_problems(schema, {f"k{i}": "v" * 100_000 for i in range(50)})
    assert len(problems) == MAX_PROBLEMS
    assert all(len(problem) < MAX_MESSAGE + 50 for problem in problems)


def test_hostile_pattern_ends() -> None:
    """A pattern with catastrophic backtracking costs bounded work."""
    schema = {"properties": {"p": {"pattern": "^(a+)+$"}}}
    assert argument_problems(schema, {"p": "a" * 5000 + "!"})


@given(json_values, st.sampled_from([OBJECT, {}, {"type": "object", "maxProperties": 1}]))
def test_any_json_gets_an_answer(arguments: Any, schema: dict[str, Any]) -> None:
    """Whatever a model sends, there is a list of problems and no exception."""
    problems = argument_problems(schema, arguments)
    assert isinstance(problems, list)
    assert bool(problems) or isinstance(arguments, dict)
