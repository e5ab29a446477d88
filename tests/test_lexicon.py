"""The lexical half of a score: a catalog's terms, their weights, and the turns' terms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ta_fast.lexicon import K1, SCALE, B, Lexicon
from ta_fast.types import Tool
from ta_fast.vocabulary import Vocabulary
from ta_fast_kernels.terms import TermRows

KNOWN = """
    read file folder list weather city forecast send mail issue git hub github branch owner unit
    celsius kelvin jira shown color red green shape inner
"""
WORDS = KNOWN.split()
PIECES = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", ".", "the", "##s", "##y", "x", *WORDS]
IDS = {piece: place for place, piece in enumerate(PIECES)}
VOCABULARY = Vocabulary.from_pieces(PIECES)


def tokenize(texts: Sequence[str]) -> list[bytes]:
    """Words in lower case, a final s or y after a known word apart; special tokens around."""
    return [np.array([1, *tokens(text), 2], np.int32).tobytes() for text in texts]


def tokens(text: str) -> list[int]:
    """The ids of a text without special tokens."""
    ids = []
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        body, end = (word[:-1], "##" + word[-1]) if word[-1:] in "sy" else (word, "")
        if word in IDS or body not in IDS:
            ids.append(IDS.get(word, IDS["[UNK]"]))
        else:
            ids += [IDS[body], IDS[end]]
    return ids


def build(*tools: Tool) -> tuple[Lexicon, TermRows]:
    """The lexicon of some tools, checked."""
    lexicon, rows = Lexicon.build(VOCABULARY, tools, tokenize)
    rows.check()
    assert rows.terms.max(initial=-1) < len(lexicon)
    assert len(rows) == len(tools)
    return lexicon, rows


def shared(tool: Tool, text: str) -> int:
    """How many terms a turn shares with one tool of two."""
    lexicon, rows = build(tool, Tool("other", "other"))
    turn = lexicon.read(tokenize([text]))[0]
    turn.check()
    return len(set(turn.terms) & set(rows.part(0, 1).terms))


def same(left: TermRows, right: TermRows) -> bool:
    """Whether two are equal in every entry."""
    fields = ("offsets", "terms", "values")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in fields)


SILENT = {"the", ".", "unheard"}
texts = st.lists(st.sampled_from([*WORDS, *SILENT, "files", "x"]), max_size=9)


@given(st.lists(texts, min_size=1, max_size=8))
def test_weights_are_bm25(descriptions: list[list[str]]) -> None:
    """Each weight is the formula's, from plain counts of the words."""
    tools = [Tool(str(i), "x", " ".join(words)) for i, words in enumerate(descriptions)]
    _, rows = build(*tools)
    counts = [
        Counter(word.removesuffix("s") for word in ["x", *words] if word not in SILENT)
        for words in descriptions
    ]
    length = sum(sum(count.values()) for count in counts) / len(counts)
    for place, count in enumerate(counts):
        expected = []
        for word, often in count.items():
            holders = sum(other[word] > 0 for other in counts)
            rarity = log(1 + (len(counts) - holders + 0.5) / (holders + 0.5))
            norm = K1 * (1 - B + B * sum(count.values()) / length)
            weight = round(SCALE * 2**11 * rarity * often * (K1 + 1) / (often + norm))
            expected += [weight] if weight else []
        assert sorted(rows.part(place, place + 1).values.tolist()) == sorted(expected)


@given(st.lists(texts, max_size=6))
def test_turns_alone_and_in_a_batch(turns: list[list[str]]) -> None:
    """A turn's terms and words do not depend on its batch."""
    lexicon, _ = build(Tool("a", "readFile", "the city forecast"), Tool("b", "send_mail"))
    rows = tokenize([" ".join(words) for words in turns])
    batch, words = lexicon.read(rows)
    batch.check()
    assert len(batch) == len(words) == len(turns)
    assert set(batch.values.tolist()) <= {1}
    for place, row in enumerate(rows):
        alone, count = lexicon.read([row])
        assert same(batch.part(place, place + 1), alone)
        assert words[place].tolist() == count[0].tolist()


def test_words_and_those_of_no_tool_are_counted() -> None:
    """Stop words and punctuation are no words; a word counts as often as it is said."""
    lexicon, _ = build(Tool("a", "readFile"), Tool("b", "send_mail"))
    texts = ["read the file", "send mails. the weather, weather", "the ."]
    _, found = lexicon.read(tokenize(texts))
    assert found.tolist() == [[2, 0], [4, 2], [0, 0]]


def test_a_turn_counts_a_word_once_and_drops_what_no_tool_has() -> None:
    """Repetition, stop words and words of no tool leave no trace."""
    lexicon, _ = build(Tool("a", "send_mail"), Tool("b", "weather"))
    plain = lexicon.read(tokenize(["send mail"]))[0]
    assert plain.terms.size == 2
    assert same(
        plain, lexicon.read(tokenize(["mail, send the unheard mail . folder mails send"]))[0]
    )


@pytest.mark.parametrize(
    ("tool", "text", "count"),
    [
        (Tool("t", "listGitHub_Issue"), "list git hub issues", 4),
        (Tool("t", "listGitHub_Issue"), "listgithub", 0),
        (Tool("t", "GitHub_Issue"), "github", 1),
        (Tool("t", "x", "Sends the\n mail to\n\nthe owner"), "send mail owner", 3),
        (Tool("t", "x", server="jira-mail"), "jira mail", 2),
    ],
)
def test_name_description_and_server_are_terms(tool: Tool, text: str, count: int) -> None:
    """A name counts in words, split at capitals and punctuation, and also as it is written."""
    assert shared(tool, text) == count


@pytest.mark.parametrize("word", ["branch", "owner", "kelvin", "color", "shape", "inner", "green"])
def test_parameters_are_terms(word: str) -> None:
    """Names, descriptions and choices of parameters count, at any depth."""
    schema = {
        "type": "object",
        "properties": {
            "branchName": {"description": "the owner"},
            "unit": {"enum": ["celsius", "kelvin", 3, None]},
            "list": {"items": {"properties": {"color": {}}}, "description": None},
            "any": {"anyOf": [{"$ref": "#/$defs/X"}, {"properties": {"shape": True}}]},
        },
        "$defs": {"X": {"description": "inner", "enum": ["green"]}},
    }
    assert shared(Tool("t", "x", input_schema=schema), word) == 1


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": [1], "items": 3, "anyOf": "no", "enum": {"a": 1}, "description": 7},
        {"properties": {"file": None, "list": [], "send": {"enum": "red"}}},
        {"properties": {f"file{i}": {"description": "x " * 99} for i in range(2000)}},
    ],
)
def test_odd_schemas_do_no_harm(schema: dict[str, object]) -> None:
    """What is no schema is passed over, and the largest are cut."""
    assert shared(Tool("t", "read", input_schema=schema), "read") == 1


def test_nothing_at_all() -> None:
    """No tools, tools without a word, no turns, and empty turns."""
    lexicon, rows = build()
    assert (len(lexicon), len(rows), len(lexicon.read([])[0])) == (0, 0, 0)
    assert lexicon.read([*tokenize(["read the file"]), b""])[0].offsets.tolist() == [0, 0, 0]
    lexicon, rows = build(Tool("a", "..."), Tool("b", ""), Tool("c", "read"))
    assert np.diff(rows.offsets).tolist() == [0, 0, 1]
    assert np.diff(lexicon.read([b"", *tokenize(["read"]), b""])[0].offsets).tolist() == [0, 1, 0]


def test_what_every_tool_has_weighs_nothing() -> None:
    """A word of all tools is no evidence, and takes no room."""
    _, rows = build(*(Tool(str(i), "jira", WORDS[i % 8]) for i in range(200)))
    assert np.diff(rows.offsets).tolist() == [1] * 200


def test_large_catalogs_are_read_in_parts() -> None:
    """The order of the tools only orders the rows, and the same tools give the same rows."""
    drawn = np.random.default_rng(3).integers(0, len(WORDS), (2500, 6))
    tools = [Tool(str(i), " ".join(WORDS[word] for word in row)) for i, row in enumerate(drawn)]
    order = np.random.default_rng(4).permutation(len(tools))
    lexicon, rows = build(*tools)
    other, shuffled = build(*(tools[place] for place in order))
    assert np.array_equal(lexicon.keys, other.keys)
    assert same(rows.take(order), shuffled)
    assert same(rows, build(*tools)[1])


def test_related_tools_share_more() -> None:
    """The sum of the shared weights is larger for the tool that is meant."""
    tools = [
        Tool("forecast", "getForecast", "weather forecast of a city"),
        Tool("mail", "send_mail", "send a mail to the owner"),
        Tool("issue", "list_issues", "list the issues shown on a branch"),
    ]
    lexicon, rows = build(*tools)
    turns = lexicon.read(tokenize(["the weather in my city", "mail it to him", "which issue"]))[0]
    weights, counts = (np.zeros((3, len(lexicon)), np.int64) for _ in range(2))
    for row in range(3):
        part, turn = rows.part(row, row + 1), turns.part(row, row + 1)
        weights[row, part.terms] = part.values
        counts[row, turn.terms] = turn.values
    assert (counts @ weights.T).argmax(axis=1).tolist() == [0, 1, 2]
