"""Training on the small random BERT: that it learns, resumes, repeats, and is what is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ta_fast.catalog import Catalog  # noqa: E402
from ta_fast.catalog.sources import read_file  # noqa: E402
from ta_fast.encoder import make_encoder, shows_tokens  # noqa: E402
from ta_fast.encoder.model_folder import read_model_folder  # noqa: E402
from ta_fast.errors import InvalidConfig  # noqa: E402
from ta_fast.evaluate import measure, rank, read_queries  # noqa: E402
from ta_fast.snapshot import Snapshot  # noqa: E402
from ta_fast.train.batches import DeviceSet  # noqa: E402
from ta_fast.train.bert import Bert  # noqa: E402
from ta_fast.train.command import Options, read_sets, run  # noqa: E402
from ta_fast.train.folder import load_bert  # noqa: E402
from ta_fast.train.loop import averaged, train  # noqa: E402
from ta_fast.train.measure import figures  # noqa: E402
from ta_fast.train.recipe import Recipe  # noqa: E402
from tests.train.tiny_sets import SUBJECTS, write_base, write_set  # noqa: E402

CPU = torch.device("cpu")
RECIPE = Recipe(
    passes=4,
    queries=5,
    tools=4,
    rate=3e-3,
    noise=0.3,
    turns=0.1,
    joint=1.0,
    dense=0.3,
    hard=2,
    of_texts=5,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that is trained."""
    return write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two sets of one origin and one of another."""
    root = tmp_path_factory.mktemp("sets")
    names = {"one_a": SUBJECTS, "one_b": (*SUBJECTS, "a list"), "two_a": SUBJECTS[::-1]}
    return tuple(write_set(root / name, subjects) for name, subjects in names.items())


@pytest.fixture(scope="module")
def start(base: Path) -> Bert:
    """The model before training."""
    return load_bert(read_model_folder(base), CPU)


@pytest.fixture(scope="module")
def sets(base: Path, folders: tuple[Path, ...]) -> list[DeviceSet]:
    """The sets, ready."""
    return [
        DeviceSet(one, CPU) for one in read_sets(Options(folders, base / "out", base=str(base)))
    ]


def equal(one: Bert, other: Bert) -> bool:
    """Whether two models have the same bits."""
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_loss_falls_and_words_stay(start: Bert, sets: list[DeviceSet]) -> None:
    """Training lowers the loss and leaves frozen weights alone."""
    plain = Recipe(passes=12, queries=8, rate=3e-3, dropout=0.0)
    trained, losses = train(start, sets, plain)
    assert len(losses) == plain.passes
    assert losses[-1] < 0.7 * losses[0]
    changed = {n for n, w in trained.weights.items() if not torch.equal(w, start.weights[n])}
    assert changed == set(start.trained())
    assert "embeddings.word_embeddings.weight" not in changed


def test_seeds_reproduce(start: Bert, sets: list[DeviceSet]) -> None:
    """One seed gives one model, another seed another."""
    short = replace(RECIPE, passes=1)
    first, losses = train(start, sets, short)
    again, same = train(start, sets, short)
    other, _ = train(start, sets, replace(short, seed=1))
    assert equal(first, again)
    assert losses == same
    assert not equal(first, other)


def test_a_resumed_run_ends_like_one_in_one_go(
    start: Bert, sets: list[DeviceSet], tmp_path: Path
) -> None:
    """Stopped inside its third pass, a run goes on after its second to the same bits."""
    whole, losses = train(start, sets, RECIPE)
    state = tmp_path / "state"

    def stop(done: int, total: int, _: float) -> None:
        if done > 0.6 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, sets, RECIPE, state=state, progress=stop)
    steps: list[int] = []
    resumed, same = train(
        start, sets, RECIPE, state=state, progress=lambda done, *_: steps.append(done)
    )
    assert steps[0] > 1
    assert same == losses
    assert equal(whole, resumed)
    with pytest.raises(InvalidConfig, match="another recipe"):
        train(start, sets, replace(RECIPE, rate=1e-4), state=state)


def test_averaging_goes_from_the_original_to_the_trained(
    start: Bert, sets: list[DeviceSet]
) -> None:
    """Keeping nothing is the original, half lies between; both in float16."""
    trained, _ = train(start, sets, replace(RECIPE, passes=1))
    name = "encoder.layer.0.output.dense.weight"
    old, new = start.weights[name].detach(), trained.weights[name].detach()
    assert torch.equal(averaged(start, [trained], 0.0).weights[name].detach(), old.half().float())
    half = averaged(start, [trained], 0.5).weights[name].detach()
    torch.testing.assert_close(half, (old + new) / 2, atol=2e-3, rtol=2e-3)


def test_seeds_are_averaged_and_told_as_one_run(
    start: Bert, sets: list[DeviceSet], tmp_path: Path
) -> None:
    """Two seeds give the mean of their models; a run stopped in the second ends the same."""
    short = replace(RECIPE, passes=1, seeds=2)
    one, other = (train(start, sets, replace(short, seed=i, seeds=1))[0] for i in (0, 1))
    both, losses = train(start, sets, short)
    name = "encoder.layer.0.output.dense.weight"
    mean = (one.weights[name] + other.weights[name]).detach() / 2
    torch.testing.assert_close(both.weights[name].detach(), mean, atol=2e-3, rtol=2e-3)
    assert len(losses) == 2
    shares: list[float] = []

    def stop(done: int, total: int, _: float) -> None:
        shares.append(done / total)
        if shares[-1] > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, sets, short, state=tmp_path / "a.state", progress=stop)
    assert shares == sorted(shares)
    resumed, _ = train(start, sets, short, state=tmp_path / "a.state")
    assert equal(resumed, both)


@pytest.mark.parametrize("ranking", ["dense", "hybrid"])
def test_figures_are_those_of_evaluate(
    base: Path, folders: tuple[Path, ...], start: Bert, sets: list[DeviceSet], ranking: str
) -> None:
    """The device's rankings give the metrics that `ta-fast eval` prints."""
    encoder = make_encoder(str(base))
    for folder, one in zip(folders, sets, strict=True):
        with Catalog() as catalog:
            catalog.replace([read_file(folder / "tools.jsonl")])
            snapshot = Snapshot(catalog, encoder, "numpy", ranking=ranking)
            queries = read_queries(folder / "queries.jsonl", snapshot.index.rows)
            served = measure(snapshot.index.ids, queries, rank(snapshot, queries))
        found = figures(start, one)[ranking]
        assert found.count == served.count
        assert found.recall_5 == pytest.approx(served.recall_5)
        assert found.mrr_10 == pytest.approx(served.mrr_10)


def test_run_writes_a_model_that_is_served(
    base: Path, folders: tuple[Path, ...], tmp_path: Path
) -> None:
    """The verb's folder loads as an encoder; the report has before and after of each set."""
    options = Options(
        folders, tmp_path / "new", replace(RECIPE, passes=1), str(base), leave_out=("one_a",)
    )
    report = run(options)
    assert set(report["left_out"]) == {"one"}
    assert set(report["left_out"]["one"]) == {"one_a", "one_b"}
    assert set(report["trained_on"]) == {"one_a", "one_b", "two_a"}
    encoder = make_encoder(str(options.out))
    assert shows_tokens(encoder)
    sets = [
        DeviceSet(one, CPU)
        for one in read_sets(replace(options, base=str(base), out=tmp_path / "no"))
    ]
    found = figures(load_bert(read_model_folder(options.out), CPU), sets[0])
    after = report["trained_on"]["one_a"]["after"]["hybrid"]
    assert found["hybrid"].mrr_10 == pytest.approx(after["mrr_10"])
    assert not list(options.out.glob("*.state"))
    with pytest.raises(InvalidConfig, match="not empty"):
        run(options)
    assert run(replace(options, resume=True))["left_out"] == report["left_out"]
    with pytest.raises(InvalidConfig, match="recipe differs"):
        run(replace(options, resume=True, recipe=RECIPE))


def test_nothing_to_train_on_is_refused(start: Bert, tmp_path: Path) -> None:
    """No sets are an error, not an untrained model."""
    with pytest.raises(InvalidConfig, match="nothing to train on"):
        train(start, [], RECIPE)
    with pytest.raises(InvalidConfig, match="nothing to train on"):
        run(Options((), tmp_path))


def test_long_and_short_texts_keep_their_places(start: Bert, sets: list[DeviceSet]) -> None:
    """Batches by length give each text its own vector, with and without gradients."""
    texts = sets[0].tools
    places = np.arange(len(texts.host_lengths))[::-1].copy()
    together = start.embed(texts, places)
    for at in (0, 7, len(places) - 1):
        alone = start.embed(texts, places[at : at + 1])
        torch.testing.assert_close(alone[0], together[at], atol=1e-5, rtol=0)
    with_gradients = start.encode(texts, places, 0.0).detach()
    torch.testing.assert_close(with_gradients, together, atol=1e-5, rtol=0)
