"""`podwire operator`: what is done once for a whole cluster."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import click

from podwire.base.config import NAME
from podwire.base.errors import UsageError
from podwire.cli import values
from podwire.cli.seconds import LIMIT


class Address(click.ParamType[Any]):
    """``HOST:PORT``, an IPv6 address in brackets; ``off`` for none."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "off" or not isinstance(value, str):
            return None if value == "off" else value
        host, _, port = value.rpartition(":")
        try:
            address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            number = int(port) if port.isascii() and port.isdigit() else -1
        except ValueError:
            number = -1
        if not 0 < number < 65536:
            self.fail(f"{values.told(value)} is no address and port, for example 127.0.0.1:9963", param, ctx)
        return str(address), number


NAMED = values.Checked(
    "name", "lower case letters, digits, - and . inside", lambda text: bool(re.match(NAME, text))
)


class Part(click.ParamType[Any]):
    """A pool and the bits of each node's part of it: ``10.0.0.0/8,24``."""

    name = "pool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        cidr, _, bits = value.partition(",")
        try:
            network = ipaddress.ip_network(cidr)
        except ValueError as error:
            self.fail(f"{values.told(value)}: {error}; for example 10.0.0.0/8,24", param, ctx)
        size = int(bits) if bits.isascii() and bits.isdigit() and len(bits) < 4 else -1
        if not network.prefixlen <= size <= network.max_prefixlen:
            allowed = f"{network.prefixlen} to {network.max_prefixlen}"
            self.fail(f"{values.told(value)}: behind the comma is a node's part, {allowed}", param, ctx)
        return str(network), size


@click.command()
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), envvar="KUBECONFIG", help="default: of the pod it is in"
)
@click.option(
    "--cluster-name",
    type=NAMED,
    default="default",
    show_default=True,
    help="the cluster's, as agents know it",
)
@click.option(
    "--cluster-id",
    type=click.IntRange(0, 511),
    default=0,
    show_default=True,
    help="its number in a mesh of clusters, as agents know it",
)
@click.option(
    "--max-connected-clusters",
    type=click.Choice(["255", "511"]),
    default="255",
    show_default=True,
    help="the highest number in the mesh",
)
@click.option(
    "--identity",
    type=NAMED,
    default=None,
    metavar="NAME",
    help="its own among operators (default: host, pid)",
)
@click.option(
    "--lease-namespace", type=NAMED, default="kube-system", show_default=True, help="where the Lease is"
)
@click.option(
    "--lease-seconds",
    type=click.IntRange(1, 3600),
    default=15,
    show_default=True,
    help="silence after which another operator takes over",
)
@click.option(
    "--identity-grace",
    type=LIMIT,
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="how long an identity is unused before it is marked, and again before it is deleted",
)
@click.option(
    "--orphan-grace",
    type=LIMIT,
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="how long a CiliumEndpoint has no pod, a CiliumNode no Node, before it is deleted",
)
@click.option(
    "--pool",
    "pools",
    type=Part(),
    multiple=True,
    metavar="CIDR,BITS",
    help="give Nodes without pod CIDRs one of BITS of this pool; repeatable (default: others give them)",
)
@click.option(
    "--metrics",
    type=Address(),
    default="127.0.0.1:9963",
    show_default=True,
    metavar="ADDRESS",
    help="where /metrics and /healthz are served; off: nowhere",
)
def operator(
    kubeconfig: Path | None,
    cluster_name: str,
    cluster_id: int,
    max_connected_clusters: str,
    identity: str | None,
    lease_namespace: str,
    lease_seconds: int,
    identity_grace: float,
    orphan_grace: float,
    pools: tuple[tuple[str, int], ...],
    metrics: tuple[str, int] | None,
) -> None:
    """What is done once for a whole cluster, whatever the number of its nodes: policies are judged, what
    nobody uses any more is deleted, nodes get pod CIDRs. Of several that run one leads, by a Lease."""
    from podwire.base.config import misnamed_cluster
    from podwire.base.telemetry import configure_logging
    from podwire.model.cluster import Cluster
    from podwire.operator.wiring import Candidate, Settings

    cluster = Cluster(cluster_name, cluster_id, int(max_connected_clusters))
    for problem, hint in misnamed_cluster(cluster.name, cluster.id, cluster.most):
        raise UsageError(f"--{problem}", hint=hint)
    name = identity or f"{socket.gethostname().lower()}-{os.getpid()}"
    configure_logging(f"operator[{name}]")
    candidate = Candidate(
        identity=name, namespace=lease_namespace, lasts=float(lease_seconds), retry=lease_seconds * 2 / 15
    )
    settings = Settings(
        cluster=cluster, identity_grace=identity_grace, orphan_grace=orphan_grace, pools=pools
    )
    asyncio.run(_run(kubeconfig, candidate, settings, metrics))


async def _run(
    kubeconfig: Path | None, candidate: Any, settings: Any, metrics: tuple[str, int] | None
) -> None:
    """Until SIGTERM or SIGINT; the lease is given back."""
    from functools import partial

    from podwire.kube import Client
    from podwire.operator.wiring import Operator
    from podwire.policy.parse import parse

    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    agent = "podwire-operator"
    found = Client.from_kubeconfig(kubeconfig, agent=agent) if kubeconfig else Client.in_cluster(agent=agent)
    async with found as client:
        await Operator(client, candidate, partial(parse, cluster=settings.cluster.name), settings).run(
            told, metrics
        )
