"""How good the probability that some tool fits is, set by set, and what labels it needs.

``ta-fast calibrate`` learns from a catalog's own labels. Beside it stands what other catalogs'
labels give a catalog that has none. Turns that no tool fits are made as in learning.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from bench.quality_bed import Bed, Row, bar
from bench.quality_sets import NEVER_TRAINED, PUBLIC, labelled, present, snapshot_of, trained_on
from ta_fast.evaluate import Query, learn, measure_across, measure_on
from ta_fast.evaluate.testbed.tools import SEED
from ta_fast.snapshot import Snapshot

SETS = tuple(name for name in PUBLIC if name != "bfcl_synth") + NEVER_TRAINED
"""One of each origin, so that a catalog left out has no relative among the others."""
FEW = 100
"""Own labels, as many as the paper says that its threshold needs at least."""
MOST = 1_000
"""Queries of a set, so that it takes seconds."""


def calibration(bed: Bed) -> Row:
    """AUROC and calibration error on queries left out, and on whole catalogs left out."""
    there, absent = present(SETS)
    sets = []
    for name in there:
        tools, queries = labelled(name)
        few = queries[:: len(queries) // MOST + 1]
        sets.append((snapshot_of(tools, bed.encoder, bed.ranking), few))
    across = measure_across(sets) if len(sets) > 1 else []
    rows: list[Row] = []
    with bar("calibration", there) as advance:
        for place, (name, (snapshot, queries)) in enumerate(zip(there, sets, strict=True)):
            row = {"set": name, "trained_on": trained_on(bed, name), "queries": len(queries)}
            row |= {"across": across[place].error if across else None}
            rows.append({**row, **_own(snapshot, queries)})
            advance.update()
    return {"rows": rows, "absent": absent}


def _own(snapshot: Snapshot, queries: Sequence[Query]) -> Row:
    """With the set's own labels: a hundred of them, and nearly all in cross-validation."""
    learnt = learn(snapshot, queries, {})
    found = {"auroc": learnt.auroc, "error": learnt.fit_error, "right_error": learnt.right_error}
    if len(queries) < 2 * FEW:
        return {"few": None, **found}
    mixed = random.Random(SEED).sample(queries, len(queries))  # noqa: S311 - no secret
    few = measure_on(snapshot, learn(snapshot, mixed[:FEW], {}), mixed[FEW:])
    return {"few": few.error, **found}
