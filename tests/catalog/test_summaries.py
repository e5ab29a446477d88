"""Summaries: short, one line, stable, and made of what an intent would say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ta_fast.catalog.summaries import MAX_SUMMARY_TOKENS, summarize
from ta_fast.errors import InvalidCatalog
from ta_fast.tokens import count_tokens
from ta_fast.types import Tool

FILLING = "It also does a number of other things that nobody at all will ever need. " * 8


def summary(description: str, name: str = "read", **fields: object) -> str:
    """The summary of a tool with this description."""
    return summarize(Tool(id=name, name=name, description=description, **fields))  # type: ignore[arg-type]


def test_a_short_description_is_kept_whole() -> None:
    """Everything fits, on one line, after the name."""
    assert summary("Read a file.\n  Returns text.") == "read: Read a file. Returns text."


def test_markup_and_reference_are_dropped() -> None:
    """Marks, code, link targets, addresses, and all from a heading of reference on."""
    description = (
        "**Read** a `file`, see [the guide](https://example.com/a).\n"
        "- Fast at https://example.com/b too\n"
        "```json\n{}\n```\n"
        "Args:\n    path: where\n\nReturns: text"
    )
    assert summary(description) == "read: Read a file, see the guide. Fast at too"


def test_a_description_that_is_only_reference_is_kept() -> None:
    """A heading is no reason to say nothing."""
    assert summary("Args: path of the file to read") == "read: Args: path of the file to read"


def test_sentences_on_when_to_use_come_before_others() -> None:
    """What does not fit is left out whole; the order of the text is kept."""
    text = summary(f"Read a file. {FILLING} Use this when you need text. Not for images.")
    assert text.startswith("read: Read a file. It also does")
    assert text.endswith("Use this when you need text. Not for images.")
    assert count_tokens(text) <= MAX_SUMMARY_TOKENS


def test_sentences_on_when_not_to_use_come_last() -> None:
    """An embedding hardly sees a "not", so other sentences have the room first."""
    filling = "word " * 40
    text = summary(f"Read a file. Do not use this when you need {filling}. Keeps {filling}.")
    assert "Keeps" in text
    assert "Do not" not in text


def test_an_abbreviation_ends_no_sentence() -> None:
    """A sentence is not cut after "e.g."."""
    filling = "word " * 45
    text = summary(f'Read a file. Takes a path (e.g. "/tmp/a"). Many {filling}.')
    assert text == 'read: Read a file. Takes a path (e.g. "/tmp/a").'


def test_a_first_sentence_that_is_too_long_is_cut_between_words() -> None:
    """The summary ends with a whole word of the description."""
    text = summary("supercalifragilistic " * 100)
    assert MAX_SUMMARY_TOKENS - 10 < count_tokens(text) <= MAX_SUMMARY_TOKENS
    assert set(text.split()[1:]) == {"supercalifragilistic"}


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("", "read (path, head)"),
        ("Concert info", "read: Concert info (path, head)"),
        ("Reads text from files", "read: Reads text from files"),
    ],
)
def test_argument_names_help_where_the_description_is_short(
    description: str, expected: str
) -> None:
    """They are added to three words or fewer, in the schema's order."""
    schema = {"type": "object", "properties": {"path": {}, "head": {}}}
    assert summary(description, input_schema=schema) == expected


def test_many_argument_names_are_cut() -> None:
    """As many as fit, whole."""
    schema = {"properties": {f"argument_{n}": {} for n in range(100)}}
    text = summary("", input_schema=schema)
    assert text.startswith("read (argument_0, argument_1,")
    assert text.endswith(")")
    assert count_tokens(text) <= MAX_SUMMARY_TOKENS


def test_the_operators_summary_wins() -> None:
    """It gets the name before it, once."""
    assert summary("Ignored.", summary="Fetch\nbytes.") == "read: Fetch bytes."
    assert summary("Ignored.", summary="read: bytes.") == "read: bytes."


@pytest.mark.parametrize("text", ["", " \n", "word " * 60])
def test_an_unusable_operators_summary_is_refused(text: str) -> None:
    """Empty, or too long together with the name."""
    with pytest.raises(InvalidCatalog, match="tool 'read': its summary"):
        summary("Ignored.", summary=text)


@settings(max_examples=150, deadline=None)
@given(
    name=st.text(min_size=1, max_size=200).filter(str.strip),
    description=st.one_of(
        st.text(max_size=600),
        st.lists(
            st.sampled_from(["Use this when. ", "x" * 70, "漢字。", "[", "`", "\n- ", "a. "])
        ).map("".join),
    ),
)
def test_any_tool_has_a_short_line(name: str, description: str) -> None:
    """At most 60 tokens, one line, and the same again."""
    text = summary(description, name)
    assert count_tokens(text) <= MAX_SUMMARY_TOKENS
    assert text == " ".join(text.split())
    assert text == summary(description, name)


def test_hostile_text_is_summarised_at_once() -> None:
    """Descriptions made to upset patterns give a summary too."""
    for text in ("[" * 60_000, "```" * 20_000, "\n" * 60_000, "a" * 60_000, "- " * 30_000):
        assert count_tokens(summary(text)) <= MAX_SUMMARY_TOKENS
