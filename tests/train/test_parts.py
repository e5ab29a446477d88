"""The parts of training: recipes, logs, prepared files, the loss, mining, noise."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ta_fast.catalog import Catalog
from ta_fast.encoder import TokenEncoder, make_encoder, shows_tokens
from ta_fast.errors import InvalidCatalog, InvalidConfig
from ta_fast.train.data import TEXTS, WORDINGS, Prepared
from ta_fast.train.noise import noisy, reworded
from ta_fast.train.prepare import read_log, read_set
from ta_fast.train.recipe import Recipe
from ta_fast.types import Source, Tool
from tests.train.tiny_sets import SUBJECTS, write_base, write_rows, write_set


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenEncoder:
    """The small BERT's encoder."""
    encoder = make_encoder(str(write_base(tmp_path_factory.mktemp("model") / "base")))
    assert shows_tokens(encoder)
    return encoder


def drawn(seed: int) -> random.Random:
    """Draws of a seed."""
    return random.Random(seed)  # noqa: S311


def log_of(path: Path, *rows: dict[str, object]) -> Path:
    """A log of three turns, and more rows."""
    routes: list[dict[str, object]] = [
        {"event": "route", "turn": f"p{i}", "intent": intent}
        for i, intent in enumerate(("the list", "open a request", None))
    ]
    checks: list[dict[str, object]] = [
        {"event": "check", "turn": f"p{i}", "accepted": accepted}
        for i, accepted in enumerate((["t3"], ["t0", "gone"], ["t1"]))
    ]
    return write_rows(path, [*routes, *checks, *rows])


@pytest.fixture
def catalog() -> Catalog:
    """The tools that the log is of."""
    tools = [Tool(f"t{i}", name, f"The {name}.") for i, name in enumerate(SUBJECTS)]
    catalog = Catalog()
    catalog.replace([Source("tools", tools)])
    return catalog


def test_a_log_pairs_intents_with_accepted_tools(
    tmp_path: Path, catalog: Catalog, tokens: TokenEncoder
) -> None:
    """Turns without an intent and tools that are gone are left out."""
    made = read_log(log_of(tmp_path / "log"), catalog, tokens)
    assert (made.name, made.n_tools, made.n_queries) == ("events", len(SUBJECTS), 2)
    assert made.gold.tolist() == [[0, 0, 3], [1, 0, 0]]


def test_a_log_drops_calls_that_failed(
    tmp_path: Path, catalog: Catalog, tokens: TokenEncoder
) -> None:
    """A turn with results counts what succeeded; a broken line is named."""
    failed = {"event": "result", "turn": "p0", "tool_id": "t3", "ok": False}
    worked = {"event": "result", "turn": "p1", "tool_id": "t0", "ok": True}
    made = read_log(log_of(tmp_path / "log", failed, worked), catalog, tokens)
    assert made.gold.tolist() == [[0, 0, 0]]
    broken = log_of(tmp_path / "broken")
    broken.write_text(broken.read_text() + "[1]\n")
    with pytest.raises(InvalidCatalog, match=r"broken:7"):
        read_log(broken, catalog, tokens)


def test_a_log_without_intents_is_refused(
    tmp_path: Path, catalog: Catalog, tokens: TokenEncoder
) -> None:
    """Intents are opt-in, so the message says how to get them."""
    path = write_rows(tmp_path / "log", [{"event": "check", "turn": "p", "accepted": ["t1"]}])
    with pytest.raises(InvalidCatalog, match="log_intent"):
        read_log(path, catalog, tokens)


def test_prepared_sets_come_back_from_their_file(tmp_path: Path, tokens: TokenEncoder) -> None:
    """What is saved is read again, bit for bit; another file is refused."""
    made = read_set(write_set(tmp_path / "tiny_set"), tokens)
    assert len(made.tools.starts) - 1 == TEXTS * made.n_tools
    assert len(made.queries.starts) - 1 == WORDINGS * made.n_queries
    assert len(made.query_terms) == WORDINGS * made.n_queries
    Prepared("base", "digest", (made,)).save(tmp_path / "sets")
    again = Prepared.load(tmp_path / "sets")
    assert (again.base, again.base_digest) == ("base", "digest")
    assert again.sets[0].digest() == made.digest()
    assert again.sets[0].origin == "tiny"
    (tmp_path / "other").write_text("no")
    with pytest.raises(InvalidCatalog, match="prepared sets"):
        Prepared.load(tmp_path / "other")


def test_a_recipe_is_changed_by_name() -> None:
    """Flags become values of the right type; a wrong one is named."""
    changed = Recipe().having(["views=1", "joint=0.5", "loss=any"])
    assert changed == Recipe(views=1, joint=0.5, loss="any")
    for wrong, message in {
        "veiws=1": "views",
        "views=x": "expected int",
        "views=4": "at most 5",
        "noise=2": "0 to 1",
        "dense=-1": "0 to 1",
        "loss=most": "each or any",
        "passes=0": "1 or more",
    }.items():
        with pytest.raises(InvalidConfig, match=message):
            Recipe().having([wrong])


def test_an_order_is_reworded_and_other_texts_are_framed() -> None:
    """The words stay, braces too, and what is put around an order is never a greeting alone."""
    orders = {reworded("List the open issues.", drawn(seed)) for seed in range(40)}
    assert len(orders) > 5
    assert all(
        "list the open issues" in order and order != "list the open issues" for order in orders
    )
    framed = {reworded("What is {x} in Rome?", drawn(seed)) for seed in range(40)}
    assert len(framed) > 5
    assert all("What is {x} in Rome?" in text and "{when}" not in text for text in framed)


def test_noise_slips_and_cuts_but_keeps_a_text() -> None:
    """A noisy text differs, has words left, and the same draws give the same text."""
    text = "please create a calendar event for tomorrow morning at nine"
    made = [noisy(text, drawn(seed)) for seed in range(50)]
    assert made == [noisy(text, drawn(seed)) for seed in range(50)]
    assert sum(one != text for one in made) > 45
    assert all(len(one.split()) >= 4 for one in made)
    assert noisy("a", drawn(0)) == "a"
    assert noisy("", drawn(0)) == ""


def test_losses_are_their_formulas() -> None:
    """Against softmax written out, with one and with two right tools."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from ta_fast.train.batches import loss_of

    logits = np.array([[2.0, 0.5, -1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    right = np.array([[True, False, False, True], [False, True, False, False]])
    e = np.exp(logits)
    shares = e / (e + (e * ~right).sum(1, keepdims=True))
    each = -(np.where(right, np.log(shares), 0).sum(1) / right.sum(1)).mean()
    some = -np.log((e * right).sum(1) / e.sum(1)).mean()
    args = torch.from_numpy(logits), torch.from_numpy(right)
    assert float(loss_of(*args, "each")) == pytest.approx(each, rel=1e-5)
    assert float(loss_of(*args, "any")) == pytest.approx(some, rel=1e-5)


def test_mining_leaves_out_what_is_right_or_may_be() -> None:
    """The highest wrong tools below the bound, and -1 where there are too few."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from ta_fast.train.batches import mine

    scores = torch.tensor([[0.9, 0.88, 0.5, 0.6], [0.2, 0.5, 0.9, 0.1]])
    gold = np.array([[True, False, False, False], [False, True, False, False]])
    found = mine(scores, gold, Recipe(hard=3, hard_below=0.9))
    assert found.tolist() == [[3, 2, -1], [0, 3, -1]]
