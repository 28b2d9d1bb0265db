"""Deployments, ReplicaSets and DaemonSets."""

from __future__ import annotations

from podwire.apiserver.kinds import Strategy


class Deployments(Strategy):
    generation = True


class ReplicaSets(Strategy):
    generation = True


class DaemonSets(Strategy):
    generation = True
