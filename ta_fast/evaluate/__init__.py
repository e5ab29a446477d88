"""Does it choose the right tools? Retrieval metrics, the threshold, probabilities."""

from ta_fast.evaluate.calibration import ThresholdPoint, best_threshold, sweep_thresholds
from ta_fast.evaluate.calibration_fit import (
    learn,
    learn_across,
    measure_across,
    measure_on,
)
from ta_fast.evaluate.calibration_measures import (
    Abstention,
    calibration_error,
    fit_of,
    measure_abstention,
)
from ta_fast.evaluate.calibration_samples import MIN_QUERIES
from ta_fast.evaluate.queries import Query, read_queries
from ta_fast.evaluate.retrieval import Metrics, measure, rank

__all__ = [
    "MIN_QUERIES",
    "Abstention",
    "Metrics",
    "Query",
    "ThresholdPoint",
    "best_threshold",
    "calibration_error",
    "fit_of",
    "learn",
    "learn_across",
    "measure",
    "measure_abstention",
    "measure_across",
    "measure_on",
    "rank",
    "read_queries",
    "sweep_thresholds",
]
