from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ta_fast.sessions import History

TOOLS = [f"tool_{i}" for i in range(12)]
TURNS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(TOOLS), max_size=6),
        st.sets(st.sampled_from(TOOLS), max_size=3),
    ),
    max_size=30,
)


def everything(_: str) -> bool:
    return True


@given(turns=TURNS, limit=st.integers(1, 10))
def test_list_over_many_turns(turns: list[tuple[list[str], set[str]]], limit: int) -> None:
    """Whole, allowed, bounded, without repeats; only grows at its end but where it is counted."""
    history = History()
    for drawn, forbidden in turns:
        promoted = [tool for tool in drawn if tool not in forbidden]
        new = history.extended(promoted, lambda tool: tool not in forbidden, limit)  # noqa: B023
        assert set(promoted) <= set(new.tools)
        assert not forbidden & set(new.tools)
        assert len(new.tools) <= max(limit, len(set(promoted)))
        assert len(new.tools) == len(set(new.tools))
        grew = new.tools[: len(history.tools)] == history.tools
        assert new.cuts == history.cuts + (not grew)
        lost = set(history.tools) - set(new.tools)
        full = len(set(history.tools) - forbidden | set(promoted)) > limit
        assert lost <= forbidden or (full and set(new.tools) == set(promoted))
        history = new


@given(turns=TURNS)
def test_without_a_reason_nothing_is_cut(turns: list[tuple[list[str], set[str]]]) -> None:
    """With room for all, and all allowed, the list is the order of first appearance."""
    history = History()
    for promoted, _ in turns:
        history = history.extended(promoted, everything, len(TOOLS))
    seen = dict.fromkeys(tool for promoted, _ in turns for tool in promoted)
    assert history == History(tuple(seen), 0)


def test_boundary_keeps_the_front() -> None:
    """A cut drops what this turn is not promoted, and leaves the rest in its order."""
    history = History(("a", "b", "c", "d"), 0)
    assert history.extended(["e", "d", "a"], everything, 4) == History(("a", "d", "e"), 1)


def test_one_break_makes_room_for_many_turns() -> None:
    """After a boundary the list grows for turns without another one."""
    history, cuts = History(), []
    for turn in range(60):
        history = history.extended([f"tool_{turn}", f"tool_{turn - 1}"], everything, 20)
        cuts.append(history.cuts)
    assert cuts[-1] == 3
    assert len(history.tools) <= 20


def test_same_tools_are_the_same_history() -> None:
    """A turn that changes nothing gives the object itself, so that nothing need be written."""
    history = History(("a", "b"), 2)
    assert history.extended(["b"], everything) is history
