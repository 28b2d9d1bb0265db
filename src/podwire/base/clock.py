"""Time in which one could have heard: what "nobody has said anything for so long" is measured by."""

from __future__ import annotations


class Attention:
    """Counts the seconds in which whoever looks at it was there to hear.

    A process that was stopped, a machine that was suspended and a wall clock that was set all look as
    if others had been silent. So the caller looks at regular moments of a monotonic clock, and a gap
    between two looks counts as `most` seconds at the most: in the rest nobody could have been heard.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.seconds = 0.0
        self._looked: float | None = None

    def look(self, moment: float) -> float:
        """Note that one is there at `moment`; the seconds counted so far."""
        if self._looked is not None:
            self.seconds += min(max(moment - self._looked, 0.0), self.most)
        self._looked = moment
        return self.seconds
