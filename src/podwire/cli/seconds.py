"""How long a command waits: an option that takes a number of seconds."""

from __future__ import annotations

import math
from typing import Any

import click

LONGEST = 86400


class Seconds(click.FloatRange):
    """A number up to a day. NaN is in no range, and FloatRange lets it through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is no number of seconds, for example 60", param, ctx)
        return number


WAITED = Seconds(0, LONGEST)  # 0: look once
LIMIT = Seconds(0, LONGEST, min_open=True)
