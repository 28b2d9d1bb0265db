"""How what is tried again and again comes out: counted where it is done, for who asks how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable


class Attempts:
    """Of one task: so often done, so often failed, when last, and why. Times in s since 1970; 0 = never."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.successes = 0
        self.failures = 0
        self.in_a_row = 0  # failures since the last success
        self.error = ""  # of the last failure
        self.last_success = 0.0
        self.last_failure = 0.0
        self._clock = clock

    def succeeded(self) -> None:
        self.successes += 1
        self.in_a_row = 0
        self.last_success = self._clock()

    def failed(self, error: object) -> None:
        self.failures += 1
        self.in_a_row += 1
        self.error = str(error)
        self.last_failure = self._clock()
