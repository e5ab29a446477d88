"""Bearer keys: whose turns they are, what always holds, and what a client may say."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ta_fast.errors import InvalidCatalog, InvalidConfig
from ta_fast.gate import check_fact
from ta_fast.serve.errors import Refused, forbidden

Right = Literal["report", "reload", "metrics"]
SCHEME = b"bearer "
MAX_TOKEN = 512


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the bearer of one key is and may do.

    Attributes:
        sha256: Hexadecimal SHA-256 of the key. The file holds no secret, and a key of 32
            random bytes cannot be found from it.
        tenant: Whose sessions and promotions it sees, and whose share of the engine it takes.
        facts: Hold on every turn of the key. What restricts its turns belongs here.
        may_set: Facts that a client may grant or revoke; ``scope:github:*`` allows all that
            begin so, ``*`` all there are.
        rights: "report" successes of tools, which set the facts that those provide; "reload"
            catalogs; read "metrics".
        catalogs: Names of those that it may use; None for all.
    """

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    tenant: str = ""
    facts: frozenset[str] = frozenset()
    may_set: tuple[str, ...] = ()
    rights: frozenset[Right] = frozenset()
    catalogs: frozenset[str] | None = None

    def check_facts(self, facts: Iterable[str]) -> None:
        """Refuse facts that a client with this key may not set.

        Raises:
            Refused: 403; names the fact.
        """
        for fact in facts:
            if not any(_matches(pattern, fact) for pattern in self.may_set):
                raise forbidden(f"the key may not set the fact {fact!r}")

    def check_right(self, right: Right) -> None:
        """Raises Refused, 403, without the right."""
        if right not in self.rights:
            raise forbidden(f"the key lacks the right {right!r}")

    def check_catalog(self, name: str) -> None:
        """Raises Refused, 404 as for one that does not exist, if the key may not use it."""
        if self.catalogs is not None and name not in self.catalogs:
            raise Refused(404, "UnknownTool", f"there is no catalog {name!r}")


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of keys."""

    keys: tuple[Key, ...]


ANYONE = Key("0" * 64, may_set=("*",), rights=frozenset(("report", "reload", "metrics")))
"""Who calls a service without keys."""
NOBODY = Key("0" * 64)
"""Who calls what needs no key."""


class Keys:
    """Finds the key that a request bears.

    The token is hashed and looked up by its hash, so no comparison's time tells anything of
    a secret; the hash found is compared in constant time as well.

    Args:
        keys: None where no key is asked for.
    """

    def __init__(self, keys: Iterable[Key] | None) -> None:
        self._open = keys is None
        self._keys = {bytes.fromhex(key.sha256): key for key in keys or ()}

    def find(self, authorization: bytes | None) -> Key:
        """The key of an ``Authorization`` header.

        Raises:
            Refused: 401.
        """
        if self._open:
            return ANYONE
        if authorization is not None and authorization[: len(SCHEME)].lower() == SCHEME:
            token = authorization[len(SCHEME) :].strip()
            digest = sha256(token[: MAX_TOKEN + 1]).digest()
            key = self._keys.get(digest)
            if key is not None and compare_digest(bytes.fromhex(key.sha256), digest):
                return key
        raise Refused(
            401,
            "Unauthorized",
            "expected a known key as 'Authorization: Bearer KEY'",
            {b"www-authenticate": b"Bearer"},
        )


def read_keys(path: Path) -> Keys:
    """Read ``{"keys": [...]}``; see ``Key``.

    Raises:
        InvalidConfig: unreadable, a field that is wrong, a pattern with a * that is not its
            end, a fact that can be none, or a key twice.
    """
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=KeyFile).keys
        for key in keys:
            for fact in (
                *key.facts,
                *(pattern.removesuffix("*") or "*" for pattern in key.may_set),
            ):
                check_fact(fact)
    except (OSError, msgspec.MsgspecError, InvalidCatalog) as error:
        raise InvalidConfig(f"cannot use the keys in {path}: {error}") from error
    for key in keys:
        for pattern in key.may_set:
            if "*" in pattern[:-1]:
                raise InvalidConfig(f"{path}: may_set {pattern!r}; expected * only at its end")
    if len({key.sha256 for key in keys}) < len(keys):
        raise InvalidConfig(f"{path} holds a key twice")
    return Keys(keys)


def _matches(pattern: str, fact: str) -> bool:
    if pattern.endswith("*"):
        return fact.startswith(pattern[:-1])
    return fact == pattern
