"""Any number of further tools, of other trades than the testbed's, to scale the catalog.

Tools of the same trades would be right as well for an intent that does not name its system, so
they would measure the labels. These are for shops, clinics, farms and the like.
"""

from __future__ import annotations

from itertools import product

from ta_fast.evaluate.testbed.tools import table
from ta_fast.types import Tool

_SHARED = 9  # shared parameters that make a schema as long as the testbed's are on average
_STRIDE = 8  # things of a trade: its next thing comes after one of every trade


def make_distractors(count: int) -> list[Tool]:
    """So many tools, each trade in turn, with schemas as long as the testbed's on average.

    Raises:
        ValueError: more are asked for than there are, some ten thousand.
    """
    words = table("distractors")
    things = [(trade, thing) for trade, row in words["things"].items() for thing in row.split()]
    verbs = words["verbs"].split()
    every = product(range(len(verbs)), range(len(things)))
    order = sorted(every, key=lambda pair: (pair[1] % _STRIDE, *pair))
    if count > len(order):
        raise ValueError(f"{count} distractors were asked for; there are {len(order)}")
    return [_distractor(verbs[verb], *things[thing]) for verb, thing in order[:count]]


def _distractor(verb: str, trade: str, thing: str) -> Tool:
    spoken, where = thing.replace("_", " "), trade.replace("_", " ")
    shared = list(table("parameters")["write"].items())[:_SHARED]
    properties = {
        f"{thing}_id": {"type": "string", "description": f"Which {spoken}."},
        **{name: {"type": "string", "description": f"{r[1]} {r[2]}"} for name, r in shared},
    }
    return Tool(
        id=f"{trade}__{verb}_{thing}",
        name=f"{verb}_{thing}",
        description=f"{verb.title()} a {spoken} of the {where}.",
        input_schema={"type": "object", "properties": properties, "required": [f"{thing}_id"]},
        server=trade,
    )
