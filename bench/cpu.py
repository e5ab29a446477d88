"""Where a process's CPU time goes: by thread from the kernel, by function from samples."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from types import FrameType
from typing import Any

_TASKS = Path("/proc/self/task")
_WAITS = {"wait", "acquire", "select", "_wait_for_tstate_lock", "_pause"}
"""Functions whose innermost frame means that the thread waits."""


def seconds_by_thread() -> dict[str, float]:
    """CPU seconds of this process's threads since their start, by name.

    ``other`` is that of threads that Python did not start. On Linux only; elsewhere nothing.
    """
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: Counter[str] = Counter()
    for task in _TASKS.iterdir() if _TASKS.is_dir() else ():
        try:
            nanoseconds = int((task / "schedstat").read_text().split()[0])
        except OSError:  # it ended just now
            continue
        found[names.get(int(task.name), "other")] += nanoseconds
    return {name: nanoseconds / 1e9 for name, nanoseconds in found.items()}


class Sampler:
    """Looks every ``period`` seconds at what each thread does.

    It needs the interpreter's lock to look, so it comes when some thread lets go of it: calls
    that do are seen somewhat too often. CPU time by thread has no such fault.
    """

    def __init__(self, period: float = 0.005) -> None:
        self._period = period
        self._functions: dict[str, Counter[str]] = {}
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample while the block runs."""
        thread = threading.Thread(target=self._sample, name="sampler", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _sample(self) -> None:
        while not self._ended.is_set():
            self._pause()
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                counted = self._functions.setdefault(names.get(ident, "other"), Counter())
                counted[_place(frame)] += 1

    def _pause(self) -> None:
        sleep(self._period)

    def top(self, many: int = 12) -> dict[str, list[dict[str, Any]]]:
        """Each thread's most seen innermost functions, as shares of its samples."""
        return {
            name: [
                {"at": at, "share": round(count / counted.total(), 3)}
                for at, count in counted.most_common(many)
            ]
            for name, counted in sorted(self._functions.items())
            if name != "sampler"
        }


def _place(frame: FrameType) -> str:
    if frame.f_code.co_name in _WAITS:
        return "waits"
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{frame.f_code.co_name}"
