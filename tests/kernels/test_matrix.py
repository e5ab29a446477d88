"""The matrix stored by class."""

import numpy as np
import pytest

from ta_fast_kernels import ToolMatrix, class_order


def test_class_order():
    """Rows are ordered by class, then by catalog row; empty classes have empty ranges."""
    rows, starts = class_order(np.array([2, 0, 2, 0, 3], dtype=np.int32), 5)
    assert rows.dtype == np.int32
    assert starts.dtype == np.int64
    assert rows.tolist() == [1, 3, 0, 2, 4]
    assert starts.tolist() == [0, 2, 2, 4, 5, 5]


def test_no_tools_and_no_classes():
    """An empty catalog is valid."""
    rows, starts = class_order(np.empty(0, dtype=np.int32), 0)
    matrix = ToolMatrix(np.empty((0, 384), dtype=np.float32), rows, starts)
    assert (len(matrix), matrix.dim, matrix.n_classes, matrix.n_words) == (0, 384, 0, 0)


def test_rows_come_back():
    """What was stored by class is read in the catalog's order."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 4)).astype(np.float32)
    classes = rng.integers(0, 7, 50).astype(np.int32)
    matrix = ToolMatrix.from_rows(vectors, classes, 7)
    stored, stored_classes = matrix.to_rows()
    np.testing.assert_array_equal(stored, vectors)
    np.testing.assert_array_equal(stored_classes, classes)
    np.testing.assert_array_equal(matrix.vectors, vectors[matrix.rows])


def test_the_array_is_held_not_copied():
    """A matrix filled in place takes no second copy."""
    rows, starts = class_order(np.zeros(3, dtype=np.int32), 1)
    vectors = np.ones((3, 2), dtype=np.float32)
    assert ToolMatrix(vectors, rows, starts).vectors is vectors


def test_max_norm_bounds_every_vector():
    """The longest norm is never understated, tiny vectors included."""
    for scale in [1e-30, 1e-20, 1.0, 1e14]:
        vectors = np.full((1, 8), scale, dtype=np.float32)
        matrix = ToolMatrix.from_rows(vectors, np.zeros(1, dtype=np.int32), 1)
        assert matrix.max_norm >= np.linalg.norm(vectors.astype(np.float64)) * (1 - 1e-6)


VECTORS = np.ones((3, 2), dtype=np.float32)
ROWS = np.array([0, 1, 2], dtype=np.int32)
STARTS = np.array([0, 2, 3], dtype=np.int64)


@pytest.mark.parametrize(
    ("vectors", "rows", "starts", "message"),
    [
        (VECTORS.astype(np.float64), ROWS, STARTS, r"vectors: .*found float64 \[3, 2\]"),
        (VECTORS[0], ROWS, STARTS, r"vectors: .*found float32 \[2\]"),
        (VECTORS[:, :0], ROWS, STARTS, r"vectors: .*found float32 \[3, 0\]"),
        (np.asfortranarray(VECTORS), ROWS, STARTS, "C-contiguous"),
        (VECTORS * np.float32(np.nan), ROWS, STARTS, r"vectors: .*found nan at \[0, 0\]"),
        (VECTORS * np.float32(np.inf), ROWS, STARTS, "vectors: .*found inf"),
        (VECTORS * np.float32(1e16), ROWS, STARTS, r"vectors: .*found 1e\+16"),
        (VECTORS, ROWS[:2], STARTS, r"rows: expected int32 \[3\], found int32 \[2\]"),
        (VECTORS, ROWS.astype(np.int64), STARTS, "rows: .*found int64"),
        (VECTORS, np.array([0, 1, 3], np.int32), STARTS, "rows: .*found 0 to 3"),
        (VECTORS, np.array([0, 1, 1], np.int32), STARTS, "rows: row 2 of 3 is missing"),
        (VECTORS, np.array([1, 0, 2], np.int32), STARTS, "rows: 1 is before 0"),
        (VECTORS, ROWS, STARTS.astype(np.int32), "starts: .*found int32"),
        (VECTORS, ROWS, np.array([0, 2], np.int64), "starts: .*ascend from 0 to 3"),
        (VECTORS, ROWS, np.array([0, 3, 2, 3], np.int64), "starts: .*ascend from 0 to 3"),
    ],
)
def test_bad_matrices_are_named(
    vectors: np.ndarray, rows: np.ndarray, starts: np.ndarray, message: str
):
    """A matrix that cannot be scored is a ValueError that says what was found."""
    with pytest.raises(ValueError, match=message):
        ToolMatrix(vectors, rows, starts)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (np.array([0, 3], np.int32), "classes: expected 0 to 2, found 0 to 3"),
        (np.array([-1, 0], np.int32), "found -1 to 0"),
        (np.array([0, 1], np.int64), "classes: .*found int64"),
    ],
)
def test_bad_classes_are_named(classes: np.ndarray, message: str):
    """A class outside its range is a ValueError."""
    with pytest.raises(ValueError, match=message):
        class_order(classes, 3)


def test_one_class_a_vector():
    """Vectors and classes have to be of one length."""
    with pytest.raises(ValueError, match="found 2, 3"):
        ToolMatrix.from_rows(VECTORS, np.zeros(2, dtype=np.int32), 1)
