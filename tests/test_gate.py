from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ta_fast.errors import InvalidCatalog
from ta_fast.gate import (
    ALWAYS,
    CLOSED_WORLD,
    MAX_DEPTH,
    NON_DESTRUCTIVE,
    READ_ONLY,
    build_gate,
    compile_precondition,
    explain_clauses,
    restricted,
)

FACTS = [f"scope:{name}" for name in "abcdefgh"]
facts_strategy = st.frozensets(st.sampled_from(FACTS))
precondition_strategy = st.recursive(
    st.sampled_from(FACTS),
    lambda inner: st.dictionaries(
        st.sampled_from(["all_of", "any_of", "none_of"]), st.lists(inner, max_size=3), max_size=3
    ),
    max_leaves=6,
)


def holds(node: Any, facts: frozenset[str]) -> bool:
    """What a precondition means, read straight off its JSON."""
    if isinstance(node, str):
        return node in facts
    return all(
        {
            "all_of": lambda items: all(holds(i, facts) for i in items),
            "any_of": lambda items: any(holds(i, facts) for i in items),
            "none_of": lambda items: not any(holds(i, facts) for i in items),
        }[key](items)
        for key, items in node.items()
    )


def compiled(node: Any) -> frozenset[Any] | None:
    """Clauses, or None for a precondition that can never hold."""
    try:
        return compile_precondition(node)
    except InvalidCatalog as error:
        assert "never hold" in str(error) or "clauses" in str(error)
        return None


@given(
    st.lists(precondition_strategy.filter(lambda n: isinstance(n, dict)), max_size=12), st.data()
)
def test_gate_classes_mean_what_the_json_says(nodes: list[Any], data: st.DataObject) -> None:
    """The allowed classes of any state are those whose precondition holds in it."""
    kept = [(node, clauses) for node in nodes if (clauses := compiled(node)) is not None]
    gate, classes = build_gate([clauses for _, clauses in kept])
    for facts in data.draw(st.lists(facts_strategy, min_size=1, max_size=5)):
        allowed = gate.allowed(facts)
        assert len(allowed) == (gate.n_classes + 31) // 32
        for (node, _), gate_class in zip(kept, classes, strict=True):
            bit = int(allowed[gate_class >> 5]) >> (gate_class & 31) & 1
            assert bool(bit) == holds(node, facts)


@given(precondition_strategy.filter(lambda n: isinstance(n, dict)), facts_strategy)
def test_explanation_names_a_way_in(node: Any, facts: frozenset[str]) -> None:
    """Granting what is missing and revoking what forbids opens the gate."""
    clauses = compiled(node)
    if clauses is None:
        return
    why = explain_clauses(clauses, facts)
    assert why.allowed == holds(node, facts)
    assert holds(node, facts.union(why.missing).difference(why.forbidding))


def test_never_satisfiable_is_refused_exactly() -> None:
    """A precondition that contradicts itself is refused; one that does not is kept."""
    with pytest.raises(InvalidCatalog, match="never hold"):
        compile_precondition({"all_of": ["scope:a"], "none_of": ["scope:a"]})
    assert compile_precondition({"any_of": ["scope:a", {"none_of": ["scope:a"]}]})


def test_many_classes_and_facts_cross_word_boundaries() -> None:
    """Bits beyond 32 facts and 32 classes are right."""
    nodes = [{"all_of": [f"scope:{i}"], "none_of": [f"scope:{i + 1}"]} for i in range(100)]
    gate, classes = build_gate([compile_precondition(node) for node in nodes])
    allowed = gate.allowed(frozenset({"scope:31", "scope:32", "scope:99"}))
    open_classes = [g for g in classes if int(allowed[g >> 5]) >> (g & 31) & 1]
    assert open_classes == [32, 99]


def test_equal_preconditions_share_a_class_and_states_are_remembered() -> None:
    """Order does not matter to a precondition; the same facts give the same array."""
    one = compile_precondition({"all_of": ["scope:a", "scope:b"]})
    two = compile_precondition({"all_of": ["scope:b", {"all_of": ["scope:a"]}]})
    gate, classes = build_gate([one, two, ALWAYS])
    assert classes.tolist() == [0, 0, 1]
    assert gate.allowed(frozenset({"scope:a"})) is gate.allowed(frozenset({"scope:a"}))
    with pytest.raises(ValueError, match="read-only"):
        gate.allowed(frozenset())[0] = 1


def test_empty_gate_has_no_classes() -> None:
    """A catalog without tools has a gate without words."""
    gate, classes = build_gate([])
    assert gate.n_classes == 0
    assert len(classes) == 0
    assert len(gate.allowed(frozenset({"scope:a"}))) == 0


@pytest.mark.parametrize(
    ("annotations", "seen_by"),
    [
        ({}, set()),
        ({"readOnlyHint": True}, {READ_ONLY, NON_DESTRUCTIVE}),
        (
            {"readOnlyHint": True, "openWorldHint": False},
            {READ_ONLY, NON_DESTRUCTIVE, CLOSED_WORLD},
        ),
        ({"destructiveHint": False}, {NON_DESTRUCTIVE}),
        ({"readOnlyHint": "true"}, set()),
        ({"readOnlyHint": False, "destructiveHint": True}, set()),
    ],
)
def test_annotations_restrict_sessions(annotations: dict[str, Any], seen_by: set[str]) -> None:
    """A restricted session sees only tools that declare themselves harmless to it."""
    clauses = restricted(ALWAYS, annotations)
    for mode in (READ_ONLY, NON_DESTRUCTIVE, CLOSED_WORLD):
        assert explain_clauses(clauses, frozenset({mode})).allowed == (mode in seen_by)
    assert explain_clauses(clauses, frozenset()).allowed


def _nested(depth: int) -> dict[str, Any]:
    node: Any = "scope:a"
    for _ in range(depth):
        node = {"all_of": [node]}
    return node  # type: ignore[no-any-return]


_cycle: dict[str, Any] = {"all_of": []}
_cycle["all_of"].append(_cycle)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"all": ["scope:a"]}, "'all'"),
        ({"all_of": "scope:a"}, "expected a list"),
        ({"all_of": [7]}, "holds 7"),
        ({"all_of": [""]}, "no fact's name"),
        ({"all_of": [" scope:a"]}, "no fact's name"),
        ({"all_of": ["a" * 300]}, "300 characters"),
        ({"any_of": []}, "never hold"),
        (_cycle, "deeper"),
        (_nested(5000), "deeper"),
        ({"all_of": [f"scope:{i}" for i in range(2000)]}, "more than 1024 items"),
        ({"all_of": [{"any_of": [f"s:{i}", f"t:{i}"]} for i in range(12)]}, "64 clauses"),
        (["scope:a"], "expected a fact's name or an object"),
    ],
)
def test_bad_preconditions_are_refused(bad: Any, says: str) -> None:
    """Malformed, cyclic, deep and large preconditions get a clear error, quickly."""
    with pytest.raises(InvalidCatalog, match=says):
        compile_precondition(bad, "the_tool")


def test_deepest_nesting_that_is_allowed() -> None:
    """The bound is the documented one."""
    assert compile_precondition(_nested(MAX_DEPTH - 1))
    with pytest.raises(InvalidCatalog):
        compile_precondition(_nested(MAX_DEPTH))
