"""The scorer that a turn is routed with."""

import numpy as np
import pytest

from ta_fast.errors import InvalidConfig
from ta_fast.scorer import SCORERS, make_scorer
from ta_fast_kernels import ToolMatrix

AXES = np.eye(4, dtype=np.float32)
CLASSES = np.array([1, 0, 1, 0], dtype=np.int32)
ANY = np.array([-1.0], dtype=np.float32)


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_answers(name: str):
    """Each name gives a scorer; it returns the allowed tools, best first."""
    scorer = make_scorer(name, ToolMatrix.from_rows(AXES, CLASSES, 2))
    query = np.array([[0.9, 0.8, 0.7, 0.6]], dtype=np.float32)
    found = scorer.topk(query, np.array([[0b01]], dtype=np.uint32), 3, ANY)
    assert found.rows.tolist() == [[1, 3, -1]]
    assert found.scores.tolist() == [[np.float32(0.8), np.float32(0.6), -np.inf]]


@pytest.mark.parametrize("name", SCORERS)
def test_two_epochs_live_at_once(name: str):
    """A scorer keeps answering for its own epoch after a newer one was made."""
    old = make_scorer(name, ToolMatrix.from_rows(AXES, CLASSES, 2))
    new = make_scorer(name, ToolMatrix.from_rows(AXES[::-1].copy(), CLASSES, 2))
    both = np.array([[0b11]], dtype=np.uint32)
    assert old.topk(AXES[:1], both, 1, ANY).rows.tolist() == [[0]]
    assert new.topk(AXES[:1], both, 1, ANY).rows.tolist() == [[3]]


def test_unknown_scorer_is_named():
    """An unknown name is refused with the known ones."""
    with pytest.raises(InvalidConfig, match="expected one of auto, numpy, found 'cuda'"):
        make_scorer("cuda", ToolMatrix.from_rows(AXES, CLASSES, 2))
