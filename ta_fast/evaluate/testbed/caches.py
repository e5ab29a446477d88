"""A provider's prompt cache: which tokens of a request are read, which written, at what price.

The rule that OpenAI and Anthropic document: the longest prefix that equals the beginning of a
recent request, token by token, is read from the cache, in whole blocks, if it has a least
length; what is new is written. The defaults, from those providers' guides on prompt caching:
1,024 tokens at least (both); blocks of 128 (OpenAI); a token read costs 0.1 of the usual price
and one written 1.25 (Anthropic, for five minutes). OpenAI charges nothing for writing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ta_fast.types import I32


@dataclass(frozen=True, slots=True)
class CacheRule:
    """How a provider's cache works; prices are multiples of an ordinary token's.

    Attributes:
        minimum: Least tokens of a prefix that is kept or read.
        block: A prefix is kept and read in whole blocks of so many tokens.
        read: Price of a token that is read.
        write: Price of a token that is written.
        ttl: Requests of the same session for which a prefix lives without being used.
    """

    minimum: int = 1024
    block: int = 128
    read: float = 0.1
    write: float = 1.25
    ttl: int = 5


FREE_WRITES = CacheRule(write=1.0)
"""The same without a price for writing."""


@dataclass(frozen=True, slots=True)
class Billed:
    """One request's tokens: all, read from the cache, written to it, and the price."""

    tokens: int
    read: int
    written: int
    price: float


class PrefixCache:
    """The cache as one session sees it: what it sent before, and nothing of others.

    Args:
        rule: How the provider's cache works.
    """

    def __init__(self, rule: CacheRule) -> None:
        self.rule = rule
        self._kept: list[tuple[int, I32]] = []  # (number of the request that used it last, prefix)
        self._requests = 0

    def request(self, ids: I32) -> Billed:
        """Send a request.

        Args:
            ids: Its tokens, int32 ``[T]``.
        """
        rule = self.rule
        self._requests += 1
        self._kept = [(used, p) for used, p in self._kept if self._requests - used <= rule.ttl]
        common = [common_prefix(ids, prefix) for _, prefix in self._kept]
        read = self._whole(max(common, default=0))
        keepable = self._whole(len(ids))
        # What was read lives on; a prefix that the new one contains is not kept twice.
        self._kept = [
            (self._requests if read and length >= read else used, prefix)
            for length, (used, prefix) in zip(common, self._kept, strict=True)
            if length < len(prefix) or len(prefix) > keepable
        ]
        if keepable:
            self._kept.append((self._requests, ids[:keepable]))
        written = max(0, keepable - read)
        price = read * rule.read + written * rule.write + (len(ids) - read - written)
        return Billed(len(ids), read, written, price)

    def _whole(self, tokens: int) -> int:
        """Tokens in whole blocks, none below the least length."""
        whole = tokens // self.rule.block * self.rule.block
        return whole if whole >= self.rule.minimum else 0


def common_prefix(one: I32, other: I32) -> int:
    """Number of tokens at the beginning that two requests share."""
    length = min(len(one), len(other))
    different = one[:length] != other[:length]
    return int(different.argmax()) if different.any() else length
