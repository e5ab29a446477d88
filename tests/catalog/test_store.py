import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ta_fast import Catalog, Tool
from ta_fast.catalog.views import VIEWS, views
from ta_fast.errors import InvalidCatalog, UnknownTool
from ta_fast.testing import HashingEncoder
from ta_fast.types import F32, Source
from ta_fast.wire import wire_name


class CountingEncoder(HashingEncoder):
    """Counts the texts that it embeds."""

    texts = 0

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        self.texts += len(texts)
        return super().encode(texts, progress=progress)


def tool(name: str, description: str = "Does a thing.", **more: Any) -> Tool:
    return Tool(id=f"srv__{name}", name=name, description=description, server="srv", **more)


def source(*tools: Tool, name: str = "file") -> Source:
    return Source(name, tools)


def test_changes_are_told_and_make_epochs() -> None:
    """Add, update, remove: each is reported, and only a change makes a new epoch."""
    catalog = Catalog()
    first = catalog.replace([source(tool("a"), tool("b"))])
    assert (first.added, first.epoch) == (("srv__a", "srv__b"), 1)
    same = catalog.replace([source(tool("a"), tool("b"))])
    assert not same
    assert (same.unchanged, same.epoch, catalog.epoch) == (2, 1, 1)
    next_ = catalog.replace([source(tool("b", "Another thing."), tool("c"))])
    assert (next_.added, next_.updated, next_.removed) == (("srv__c",), ("srv__b",), ("srv__a",))
    assert catalog.epoch == 2
    assert [t.id for t in catalog.tools()] == ["srv__b", "srv__c"]
    assert catalog.tool("srv__b").description == "Another thing."
    with pytest.raises(UnknownTool):
        catalog.tool("srv__a")


def test_sources_do_not_touch_each_other() -> None:
    """Replacing one source leaves the others; an empty source is gone."""
    catalog = Catalog()
    catalog.replace([source(tool("a"), name="one"), source(tool("b"), name="two")])
    catalog.replace([source(name="one")])
    assert catalog.sources() == {"two": 1}


def test_record_of_overrides_stays_until_it_is_changed() -> None:
    """A source that says nothing about overrides does not erase that others had some."""
    catalog = Catalog()
    catalog.replace([source(tool("a"), name="one")], overrides="rules.json")
    catalog.replace([source(tool("b"), name="two")])
    assert catalog.overrides == "rules.json"
    catalog.replace([source(tool("b"), name="two")], overrides="")
    assert catalog.overrides == ""


def test_only_what_changed_is_embedded(tmp_path: Path) -> None:
    """Vectors are keyed by a tool's views and the encoder, and survive the process."""
    encoder = CountingEncoder()
    with Catalog(tmp_path / "c.db") as catalog:
        catalog.replace([source(tool("a"), tool("b"))])
        assert catalog.embed(encoder) == 2
    with Catalog(tmp_path / "c.db") as catalog:
        assert catalog.embed(encoder) == 0
        catalog.replace([source(tool("a"), tool("b", "Sends mail."))])
        assert catalog.embed(encoder) == 1
        assert encoder.texts == 3 * VIEWS
        other = CountingEncoder(dim=32)
        assert catalog.embed(other) == 2
        assert catalog.snapshot(other).matrix.vectors.shape == (2, 32)
        assert catalog.snapshot(encoder).matrix.vectors.shape == (2, 64)


def test_older_file_is_embedded_anew(tmp_path: Path) -> None:
    """A file whose vectors are of summaries alone keeps its tools and loses those vectors."""
    path, encoder = tmp_path / "old.db", HashingEncoder()
    tools = tool("a"), tool("b")
    with Catalog(path) as catalog:
        catalog.replace([source(*tools)])
        catalog.embed(encoder)
        expected = catalog.snapshot(encoder).matrix.vectors
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE embeddings SET vector = zeroblob(256)")
        raw.execute("UPDATE tools SET summary_hash = x'00' || summary_hash")
        raw.execute("PRAGMA user_version = 2")
    raw.close()
    with Catalog(path) as catalog:
        assert catalog.embed(encoder) == 2
        assert np.array_equal(catalog.snapshot(encoder).matrix.vectors, expected)


def test_snapshot_is_of_one_moment() -> None:
    """An index does not follow later changes; vectors stand at their tools."""
    encoder = HashingEncoder()
    catalog = Catalog()
    gated = {"all_of": ["scope:x"]}
    catalog.replace(
        [source(tool("a"), tool("b", "Sends.", precondition=gated), tool("c", "Reads."))]
    )
    catalog.embed(encoder)
    index = catalog.snapshot(encoder)
    catalog.replace([source()])
    assert index.ids == ("srv__a", "srv__b", "srv__c")
    assert index.epoch == 1
    for place, row in enumerate(index.matrix.rows):
        summary = {0: "a: Does a thing.", 1: "b: Sends.", 2: "c: Reads."}[int(row)]
        texts = views(tool(summary[0], summary[3:]), summary)
        mean = encoder.encode(texts).mean(axis=0)
        expected = mean / np.linalg.norm(mean)
        assert np.allclose(index.matrix.vectors[place], expected, atol=1e-6)
    allowed = index.allowed_rows(index.gate.allowed(frozenset()))
    assert allowed.tolist() == [True, False, True]
    assert index.permits(index.gate.allowed(frozenset({"scope:x"})), 1)


def test_snapshot_without_vectors_says_what_to_do() -> None:
    """A missing vector is an error that names the tool and the remedy."""
    catalog = Catalog()
    catalog.replace([source(tool("a"))])
    with pytest.raises(InvalidCatalog, match=r"srv__a.*embed"):
        catalog.snapshot(HashingEncoder())


def test_encoder_that_gives_nan_is_refused() -> None:
    """NaN never reaches the file."""

    class Broken(HashingEncoder):
        def encode(
            self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None
        ) -> F32:
            del progress
            return np.full((len(texts), self.dim), np.nan, dtype=np.float32)

    catalog = Catalog()
    catalog.replace([source(tool("a"))])
    with pytest.raises(InvalidCatalog, match="NaN"):
        catalog.embed(Broken())
    assert catalog.embed(HashingEncoder()) == 1


@pytest.mark.parametrize("vector", [b"short", np.full(64, np.nan, dtype="<f4").tobytes()])
def test_damaged_vector_is_refused(tmp_path: Path, vector: bytes) -> None:
    """A stored vector of the wrong length, or with NaN, is found when it is read."""
    path = tmp_path / "c.db"
    with Catalog(path) as catalog:
        catalog.replace([source(tool("a"))])
        catalog.embed(HashingEncoder())
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE embeddings SET vector = ?", (vector,))
    raw.close()
    with Catalog(path) as catalog, pytest.raises(InvalidCatalog, match=r"srv__a|damaged"):
        catalog.snapshot(HashingEncoder())


def test_duplicate_ids_change_nothing() -> None:
    """Within a call and across sources; both owners are named."""
    catalog = Catalog()
    catalog.replace([source(tool("a"), name="one")])
    with pytest.raises(InvalidCatalog, match=r"srv__b.*one.*two"):
        catalog.replace([source(tool("b"), name="one"), source(tool("b"), name="two")])
    with pytest.raises(InvalidCatalog, match=r"two defines 'srv__a', but one"):
        catalog.replace([source(tool("c"), tool("a"), name="two")])
    assert (catalog.sources(), catalog.epoch) == ({"one": 1}, 1)


def test_ids_that_models_could_not_tell_apart_are_refused() -> None:
    """Two ids may not have one wire name."""
    catalog = Catalog()
    odd = Tool(id="git hub/x", name="x")
    catalog.replace([source(odd, name="one")])
    with pytest.raises(InvalidCatalog, match="already has 'git hub/x'"):
        catalog.replace([source(Tool(id=wire_name("git hub/x"), name="y"), name="two")])


@pytest.mark.parametrize(
    ("precondition", "says"),
    [
        (
            {"all_of": ["seen:srv__serach"]},
            r"unknown fact 'seen:srv__serach'; did you mean 'seen:srv__search'",
        ),
        ({"none_of": ["mode:readonly"]}, r"did you mean 'mode:read_only'"),
        ({"all": []}, "'all'"),
    ],
)
def test_bad_preconditions_change_nothing(precondition: dict[str, Any], says: str) -> None:
    """One bad precondition refuses the whole ingest, with the nearest fact suggested."""
    catalog = Catalog()
    with pytest.raises(InvalidCatalog, match=says):
        catalog.replace([source(tool("search"), tool("b", precondition=precondition))])
    assert (len(catalog), catalog.epoch) == (0, 0)


def test_declared_facts_close_the_vocabulary() -> None:
    """With the hosts' facts declared, a typo in any namespace is found."""
    catalog = Catalog()
    known = frozenset({"scope:github:write"})
    good = tool("a", precondition={"all_of": ["scope:github:write", "seen:srv__b", "found"]})
    catalog.replace([source(good, tool("b", provides=("found",)))], known_facts=known)
    bad = tool("c", precondition={"all_of": ["scope:github:wirte"]})
    with pytest.raises(InvalidCatalog, match="did you mean 'scope:github:write'"):
        catalog.replace([source(bad, name="other")], known_facts=known)


def test_unwritable_tools_are_refused() -> None:
    """What JSON cannot hold is named before anything is written."""
    catalog = Catalog()
    for schema in ({"x": float("nan")}, {"x": {1, 2}}, {"x": "\ud800"}):
        with pytest.raises(InvalidCatalog, match="srv__a"):
            catalog.replace([source(tool("a", input_schema=schema))])
    assert len(catalog) == 0


def test_files_that_are_no_catalog_are_refused(tmp_path: Path) -> None:
    """Text, another SQLite file, a newer version, a damaged file: each has its message."""
    text = tmp_path / "text.db"
    text.write_text("not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(InvalidCatalog, match="not a database"):
        Catalog(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as raw:
        raw.execute("CREATE TABLE t (x)")
    raw.close()
    with pytest.raises(InvalidCatalog, match="not a ta_fast catalog"):
        Catalog(other)
    newer = tmp_path / "newer.db"
    Catalog(newer).close()
    with sqlite3.connect(newer) as raw:
        raw.execute("PRAGMA user_version = 999")
    raw.close()
    with pytest.raises(InvalidCatalog, match="version 999, newer"):
        Catalog(newer)
    with pytest.raises(InvalidCatalog, match="cannot open"):
        Catalog(tmp_path / "no" / "folder.db")


def test_corrupt_file_is_refused(tmp_path: Path) -> None:
    """Pages overwritten with noise are found when the file is opened."""
    path = tmp_path / "c.db"
    with Catalog(path) as catalog:
        catalog.replace([source(*(tool(f"t{i}", "words " * 50) for i in range(200)))])
    blob = bytearray(path.read_bytes())
    blob[4096 : len(blob) - 4096] = b"\x5a" * (len(blob) - 8192)
    path.write_bytes(blob)
    with pytest.raises(InvalidCatalog, match=r"corrupt|malformed"):
        Catalog(path)


def test_threads_share_a_catalog() -> None:
    """Readers and writers in threads see whole epochs only."""
    catalog = Catalog()
    encoder = HashingEncoder()
    catalog.replace([source(tool("a"), tool("b"))])
    catalog.embed(encoder)
    sizes = []

    def read() -> None:
        for _ in range(50):
            catalog.embed(encoder)
            try:
                sizes.append(len(catalog.snapshot(encoder)))
            except InvalidCatalog as error:  # a writer came between embed and snapshot
                assert "no vector" in str(error)

    def write() -> None:
        for i in range(50):
            catalog.replace([source(tool("a"), tool("b", f"Version {i}."))])

    threads = [threading.Thread(target=f) for f in (read, read, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes
    assert set(sizes) == {2}
    assert catalog.epoch == 51
