"""Services, slices and network policies."""

from __future__ import annotations

from podwire.apiserver.kinds import Strategy


class Services(Strategy):
    pass


class EndpointSlices(Strategy):
    generation = True


class NetworkPolicies(Strategy):
    generation = True
