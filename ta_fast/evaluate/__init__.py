"""Does it choose the right tools? Retrieval metrics and the threshold's calibration."""

from ta_fast.evaluate.calibration import ThresholdPoint, best_threshold, sweep_thresholds
from ta_fast.evaluate.queries import Query, read_queries
from ta_fast.evaluate.retrieval import Metrics, measure, rank

__all__ = [
    "Metrics",
    "Query",
    "ThresholdPoint",
    "best_threshold",
    "measure",
    "rank",
    "read_queries",
    "sweep_thresholds",
]
