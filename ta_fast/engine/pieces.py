"""Long requests: cut into pieces, between which others may come, and answered as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ta_fast.engine.job import Answer, Computed, Request
from ta_fast.engine.router import unanswered
from ta_fast.errors import TaFastError


def split(request: Request, size: int) -> list[Request]:
    """The same turns in requests of at most ``size``, in order."""
    return [
        replace(
            request,
            texts=request.texts[first : first + size],
            allowed=request.allowed[first : first + size],
            threshold=request.threshold[first : first + size],
        )
        for first in range(0, len(request.texts), size)
    ]


def join(pieces: Sequence[Request], outcomes: Sequence[Answer | BaseException]) -> Answer:
    """One answer from those of a request's pieces; raises if there is none."""
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if not answers:
        raise next(outcome for outcome in outcomes if isinstance(outcome, BaseException))
    if len(pieces) == 1:
        return answers[0]
    n = sum(len(piece.texts) for piece in pieces)
    columns = unanswered(answers[0].columns, n)
    errors: dict[int, TaFastError] = {}
    last = 0
    for piece, outcome in zip(pieces, outcomes, strict=True):
        first, last = last, last + len(piece.texts)
        if isinstance(outcome, Answer):
            for name, values in columns.items():
                values[first:last] = outcome.columns[name]
            errors |= {first + place: error for place, error in outcome.errors.items()}
        elif isinstance(outcome, TaFastError):
            errors |= dict.fromkeys(range(first, last), outcome)
        else:
            raise outcome
    waited = max(answer.waited for answer in answers)
    stages = answers[0].seconds
    seconds = {stage: max(answer.seconds[stage] for answer in answers) for stage in stages}
    return Answer(Computed(columns, errors, seconds), 0, n, pieces[0].k, waited)
