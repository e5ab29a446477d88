"""Intents as they are typed: slips of the finger, words left out at the end, words around.

Case is left alone: MiniLM's tokenizer lowers it.
"""

from __future__ import annotations

import random

from ta_fast.train.aims import is_verb, table

_LEAST_WORD = 4
_LEAST_WORDS = 4


def noisy(text: str, rng: random.Random) -> str:
    """A text with a slip in about one word of eight, and one time in four cut short."""
    words = text.split()
    if len(words) > _LEAST_WORDS and rng.random() < 0.25:  # noqa: PLR2004
        words = words[: rng.randint(max(_LEAST_WORDS, len(words) // 2), len(words))]
    long = [place for place, word in enumerate(words) if len(word) >= _LEAST_WORD]
    slips = max(1, round(len(words) / 8))
    for place in rng.sample(long, min(slips, len(long))):
        words[place] = _slip(words[place], rng)
    return " ".join(words)


def reworded(text: str, rng: random.Random) -> str:
    """An order as a request, a question or a need; any other text with a greeting or thanks."""
    english = table()["english"]
    first, _, rest = text.strip().partition(" ")
    if is_verb(first.lower()):
        order = f"{first.lower()} {rest}".rstrip(" .!")
        return str(rng.choice(english["around"])).format(q=order)
    if rng.random() < 0.5:  # noqa: PLR2004
        return f"{rng.choice(english['opening'])} {text}"
    closing = rng.choice(english["closing"]).format(when=rng.choice(english["when"]))
    return f"{text} {closing}"


def _slip(word: str, rng: random.Random) -> str:
    """Two letters swapped, one left out, or one doubled; never the first."""
    at = rng.randrange(1, len(word) - 1)
    match rng.randrange(3):
        case 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            return word[:at] + word[at + 1 :]
        case _:
            return word[: at + 1] + word[at:]
