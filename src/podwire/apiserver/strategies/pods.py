"""Pods: defaults and what may change once they run."""

from __future__ import annotations

from podwire.apiserver.kinds import Strategy


class Pods(Strategy):
    grace = True
