"""Several catalogs in one service: what belongs to one is not found through another."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from ta_fast import Catalog, Tool, ToolAttention
from ta_fast.engine import Engine
from ta_fast.gateway import Gateway
from ta_fast.serve import Key, Keys
from ta_fast.testing import HashingEncoder
from ta_fast.types import Source
from tests.serve.service import ALICE, Client, client

OPEN = {"all_of": ["scope:door"]}
BOTH = Tool("d__both", "both", "Knock on a door.", provides=("milestone:knocked",))
HERE = (BOTH, Tool("d__open", "open", "Open a door.", precondition=OPEN))
CRM = (BOTH, Tool("d__shut", "shut", "Shut a door.", precondition=OPEN))
TURN = {"intent": "a door", "threshold": -1}
ALL = {"tenant": "acme", "may_set": ("*",), "rights": ALICE.rights}
CAROL = Key(sha256(b"carol").hexdigest(), catalogs=frozenset(("",)), **ALL)
KEYS = Keys([Key(ALICE.sha256, **ALL), CAROL])


def two() -> tuple[Gateway, dict[str, Catalog]]:
    """The catalogs "" and "crm", and a gateway of two devices over them."""
    catalogs = {"": Catalog(":memory:"), "crm": Catalog(":memory:")}
    for catalog, tools in zip(catalogs.values(), (HERE, CRM), strict=True):
        catalog.replace([Source("here", tools)])
    encoders = [HashingEncoder(), HashingEncoder()]
    attentions = {name: ToolAttention(each, encoders[0]) for name, each in catalogs.items()}
    return Gateway(attentions, Engine(2), encoders, devices=("cpu", "cpu")), catalogs


def ids(call: Client, catalog: str, *, session: str = "", **turn: Any) -> list[str]:
    """What a turn is promoted."""
    (found,) = call.route({**TURN, "session": session, **turn}, catalog=catalog)
    return [tool["id"] for tool in found["promotion"]["tools"]]


def test_a_request_names_its_catalog() -> None:
    """Turns, pools and epochs are those of the catalog named; "" is the one without a name."""
    with client(KEYS, gateway=two()[0]) as call:
        assert sorted(ids(call, "", facts=["scope:door"])) == ["d__both", "d__open"]
        assert sorted(ids(call, "crm", facts=["scope:door"])) == ["d__both", "d__shut"]
        assert call("GET", "/v1/tools?fact=scope:door").json()["ids"] == ["d__both", "d__open"]
        pool = call("GET", "/v1/tools?fact=scope:door&catalog=crm").json()
        assert pool["ids"] == ["d__both", "d__shut"]
        assert "Open" not in pool["pool"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/route", {"turns": [TURN], "catalog": "NAME"}),
        ("POST", "/v1/check", {"handle": "HANDLE", "calls": [], "catalog": "NAME"}),
        ("POST", "/v1/succeeded", {"handle": "HANDLE", "tool": "d__both", "catalog": "NAME"}),
        ("GET", "/v1/tools?catalog=NAME", None),
        ("GET", "/v1/sessions/s?catalog=NAME", None),
        ("POST", "/v1/sessions/s?catalog=NAME", {"grant": ["scope:door"]}),
        ("DELETE", "/v1/sessions/s?catalog=NAME", None),
        ("POST", "/v1/catalog/reload", {"catalog": "NAME"}),
    ],
)
def test_a_catalog_that_is_not_there_or_not_for_the_key(
    method: str, path: str, body: dict[str, Any] | None
) -> None:
    """404 for both, with the same words, whatever is asked of it; there it is answered."""

    def ask(call: Client, name: str, bearer: str) -> Any:
        (found,) = call.route(TURN, catalog="crm")
        words = {"NAME": name, "HANDLE": found["promotion"]["handle"]}
        named = body and {key: words.get(str(value), value) for key, value in body.items()}
        return call(method, path.replace("NAME", name), named, bearer)

    with client(KEYS, gateway=two()[0]) as call:
        assert ask(call, "crm", "alice").status_code in (200, 204)
        hidden, absent = ask(call, "crm", "carol"), ask(call, "none", "carol")
        assert hidden.status_code == absent.status_code == 404
        assert hidden.text == absent.text.replace("none", "crm")
        assert ask(call, "none", "alice").text == absent.text


def test_a_session_belongs_to_its_catalog() -> None:
    """Facts, tools that it keeps, its end: the other catalog's session of that id has its own."""
    there = "/v1/sessions/s?catalog=crm"
    with client(KEYS, gateway=two()[0]) as call:
        call("POST", "/v1/sessions/s", {"grant": ["scope:door"]})
        assert sorted(ids(call, "", session="s")) == ["d__both", "d__open"]
        assert call("GET", there).json() == {"facts": []}
        assert call("GET", "/v1/tools?session=s&catalog=crm").json()["ids"] == ["d__both"]
        (found,) = call.route({**TURN, "session": "s"}, catalog="crm")
        assert [t["id"] for t in found["promotion"]["tools"]] == ["d__both"]
        assert "delivered" not in found["promotion"]["tools"][0]
        call("POST", there, {"grant": ["milestone:x"]})
        assert call("DELETE", "/v1/sessions/s").status_code == 204
        assert call("GET", there).json() == {"facts": ["milestone:x"]}


def test_a_promotion_belongs_to_its_catalog() -> None:
    """Its handle is unknown in the other; success sets facts in its own session only."""
    with client(KEYS, gateway=two()[0]) as call:
        (found,) = call.route({**TURN, "session": "s"}, catalog="crm")
        of = {"handle": found["promotion"]["handle"]}
        done = {**of, "tool": "d__both"}
        calls = {**of, "calls": [{"id": "1", "name": "d__both"}]}
        assert call("POST", "/v1/check", calls).status_code == 404
        assert call("POST", "/v1/succeeded", done).status_code == 404
        accepted = call("POST", "/v1/check", {**calls, "catalog": "crm"}).json()["accepted"]
        assert [each["tool"] for each in accepted] == ["d__both"]
        assert call("POST", "/v1/succeeded", {**done, "catalog": "crm"}).status_code == 200
        assert call("GET", "/v1/sessions/s").json() == {"facts": []}
        there = call("GET", "/v1/sessions/s?catalog=crm").json()["facts"]
        assert there == ["milestone:knocked", "seen:d__both"]


def test_a_reload_is_of_one_catalog() -> None:
    """The other stays at its epoch, though its file has changed as well; metrics tell of both."""
    gateway, catalogs = two()
    with client(KEYS, gateway=gateway) as call:
        for catalog in catalogs.values():
            catalog.replace([Source("here", (BOTH, Tool("d__new", "new", "A new door.")))])
        assert call("POST", "/v1/catalog/reload", {"catalog": "crm"}).json() == {"epoch": 2}
        assert "d__new" in ids(call, "crm")
        assert "d__new" not in ids(call, "")
        told = call("GET", "/metrics").text.splitlines()
        assert "ta_fast_catalog_epoch 1" in told
        assert 'ta_fast_catalog_epoch{catalog="crm"} 2' in told
        assert "ta_fast_devices 2" in told


def test_promotions_are_counted_by_catalog() -> None:
    """What is saved, too, once the tokens of all schemas are known."""
    with client(KEYS, gateway=two()[0]) as call:
        call.route(TURN, TURN, catalog="crm")
        call.route(TURN)
        told = call("GET", "/metrics").text.splitlines()
        assert "ta_fast_promotions_total 1" in told
        assert 'ta_fast_promotions_total{catalog="crm"} 2' in told
        assert sum(line.startswith("# TYPE ta_fast_promotions_total") for line in told) == 1


def test_a_catalog_s_name_is_any_text() -> None:
    """In metrics what is special there is escaped."""
    catalog, encoder = Catalog(":memory:"), HashingEncoder()
    catalog.replace([Source("here", HERE)])
    name = 'the "door" \\ shop'
    gateway = Gateway({name: ToolAttention(catalog, encoder)}, Engine(), [encoder])
    with client(gateway=gateway) as call:
        call.route(TURN, catalog=name)
        assert call("POST", "/v1/route", {"turns": [TURN]}).status_code == 404
        told = call("GET", "/metrics").text
        assert r'ta_fast_promotions_total{catalog="the \"door\" \\ shop"} 1' in told


def test_a_query_of_too_many_fields() -> None:
    """It is malformed, and no fault of the server."""
    with client() as call:
        for path in ("/v1/tools?", "/v1/sessions/s?"):
            assert call("GET", path + "fact=a&" * 1001).status_code == 400
