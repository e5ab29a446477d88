"""Words out of token ids, for the three kinds of tokenizer and in any script."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from ta_fast.vocabulary import Vocabulary

CORPUS = [
    "list the files of a folder and read a file, then listing and filing",
    "weather forecast for a city; forecasts and cities",
    "Weather in Oslo: read it to me",
] * 3
SCRIPTS = ("абвгдежз", "αβγδεζηθ", "אבגדהוזח", "กขคงจฉชซ")


def word_piece() -> Tokenizer:
    """A BERT's: every letter is a piece, in a word and before one, and a few words are."""
    letters = "".join(SCRIPTS) + "abcdefghijklmnopqrstuvwxyz0123456789.,:;'"
    words = ["files", "file", "filing", "folder", "weather", "forecast", "the", "to", "don"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *dict.fromkeys(letters)]
    pieces += [f"##{letter}" for letter in dict.fromkeys(letters)] + ["##ing", "##s"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_level() -> Tokenizer:
    """GPT-2's kind: the first word of a text has no mark, letters of most scripts are bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentence_piece() -> Tokenizer:
    """Llama's kind: what it does not know are single bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


TOKENIZERS = {make.__name__: make() for make in (word_piece, byte_level, sentence_piece)}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


def pieces_of(tokenizer: Tokenizer) -> list[str]:
    """The pieces by id."""
    vocabulary = tokenizer.get_vocab()
    pieces = [""] * (max(vocabulary.values()) + 1)
    for piece, place in vocabulary.items():
        pieces[place] = piece
    return pieces


def words(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The keys of each text's words."""
    ids = [tokenizer.encode(text).ids for text in texts]
    starts = np.cumsum([0, *map(len, ids)])
    flat = np.array([token for row in ids for token in row], np.int32)
    owners, keys = Vocabulary.from_pieces(pieces_of(tokenizer)).words(flat, starts)
    return [keys[owners == text].tolist() for text in range(len(texts))]


@every_tokenizer
@pytest.mark.parametrize("letters", SCRIPTS)
def test_words_are_equal_where_their_letters_are(tokenizer: Tokenizer, letters: str) -> None:
    """In any script with spaces a word is found again, and no other is taken for it."""

    @settings(max_examples=15)
    @given(st.lists(st.text(letters, min_size=2, max_size=9), min_size=1, max_size=12))
    def check(drawn: list[str]) -> None:
        (together,), alone = words(tokenizer, [" ".join(drawn)]), words(tokenizer, drawn)
        assert together == [key for keys in alone for key in keys]
        assert len(set(together)) == len(set(drawn))

    check()


def test_inflections_are_one_word() -> None:
    """A piece stands for its stem, and a word of several pieces loses a plural's s."""
    tokenizer = TOKENIZERS["word_piece"]
    found = words(tokenizer, ["file", "files", "filing", "tweet", "tweets", "glas", "glass"])
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4]
    assert found[5] != found[6]
    assert {len(keys) for keys in found} == {1}


@every_tokenizer
def test_case_and_place_change_nothing(tokenizer: Tokenizer) -> None:
    """A word is the same at a text's beginning, in it, after punctuation, in capitals."""
    found = words(tokenizer, ["weather", "to Weather", "(weather)", "WEATHER", "the:weather."])
    assert found == [found[0]] * 5
    assert len(found[0]) == 1


@every_tokenizer
def test_nothing_is_no_word(tokenizer: Tokenizer) -> None:
    """Stop words, punctuation, blanks and special tokens give none."""
    assert words(tokenizer, ["", "the", " to , the . ", ";;  ::"]) == [[], [], [], []]


@every_tokenizer
@given(text=st.text(max_size=40), other=st.text(max_size=40))
def test_any_text_beside_any_other(tokenizer: Tokenizer, text: str, other: str) -> None:
    """A text's words do not depend on its neighbours."""
    apart = words(tokenizer, [text]) + words(tokenizer, [other])
    assert words(tokenizer, [text, other]) == apart


def test_a_line_ends_a_word() -> None:
    """A lone byte that is a blank joins nothing."""
    tokenizer = TOKENIZERS["sentence_piece"]
    assert "<0x0A>" in tokenizer.encode("weather\nfile").tokens
    assert words(tokenizer, ["weather\nfile"]) == words(tokenizer, ["weather file"])


def test_scripts_without_spaces() -> None:
    """Where nothing says what a word is, each piece is one."""
    pieces = ["<unk>", "\u2581", "\u2581今日", "天気", "予報", "\u2581app", "s"]
    vocabulary = Vocabulary.from_pieces(pieces)
    ids = np.array([2, 3, 4, 5, 6], np.int32)
    joined = vocabulary.joined(ids, np.array([0, 5]))
    assert joined.tolist() == [False, False, False, False, True]
    assert len(vocabulary.words(ids, np.array([0, 5]))[1]) == 4


def test_one_word_in_one_piece_and_in_several() -> None:
    """How the tokenizer happens to cut a word does not matter."""
    vocabulary = Vocabulary.from_pieces(["", "\u0120spotify", "\u0120Spot", "ify", "\u0120cities"])
    ids = np.array([1, 2, 3], np.int32)
    texts, keys = vocabulary.words(ids, np.array([0, 1, 3]))
    assert texts.tolist() == [0, 1]
    assert keys[0] == keys[1]


def test_whole_words_need_no_mark() -> None:
    """A vocabulary without marks is one of whole words."""
    vocabulary = Vocabulary.from_pieces(["[PAD]", "cities", "city", "of"])
    texts, keys = vocabulary.words(np.array([0, 1, 2, 3], np.int32), np.array([0, 2, 4]))
    assert texts.tolist() == [0, 1]
    assert keys[0] == keys[1]
