"""Many sessions, one process: turns wait, devices take batches, everyone gets an answer."""

from ta_fast.engine.embeddings import RememberingEncoder
from ta_fast.engine.engine import Engine
from ta_fast.engine.job import Answer, Request
from ta_fast.engine.metrics import Distribution, Progress, Stats
from ta_fast.engine.queue import Limits
from ta_fast.engine.router import Columns, Epoch, Prepared, Router, Rows

__all__ = [
    "Answer",
    "Columns",
    "Distribution",
    "Engine",
    "Epoch",
    "Limits",
    "Prepared",
    "Progress",
    "RememberingEncoder",
    "Request",
    "Router",
    "Rows",
    "Stats",
]
