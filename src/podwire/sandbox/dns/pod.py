"""The kube-dns Service and its pod: made, kept, and served while the pod has a network."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from podwire.apiserver.status import StatusError
from podwire.base.aio import boundary
from podwire.sandbox.cluster import Cluster
from podwire.sandbox.dns.zone import Zone
from podwire.sandbox.plan import Plan
from podwire.sandbox.runner.pod import PodWorker
from podwire.sandbox.runner.runtime import Runtime

log = logging.getLogger(__name__)
Object = dict[str, Any]
NAMESPACE, NAME = "kube-system", "kube-dns"
CHECK = 0.02  # s
AGAIN = 1.0  # s after a failure


def ensure(cluster: Cluster, plan: Plan) -> None:
    """The Service with its well-known address, and the pod on the first node."""
    _once(cluster, "services", _service(plan))
    _once(cluster, "pods", _pod(plan))


async def run(cluster: Cluster, plan: Plan, runtime: Runtime) -> None:
    """Serve DNS in the pod's network, for ever; a pod that was deleted is made again."""
    while True:
        wait = AGAIN
        with boundary("cluster DNS"):
            worker = runtime.find(NAMESPACE, NAME)
            if worker is None:
                ensure(cluster, plan)
            elif worker.place.alive and worker.place.saved.attached and not worker.stopping:
                await _serve(cluster, plan, worker)
            wait = CHECK
        await asyncio.sleep(wait)


async def _serve(cluster: Cluster, plan: Plan, worker: PodWorker) -> None:
    """Until the pod's place is gone or another one."""
    # Imported here: it is 70 ms of processor time that nothing before this needs.
    from podwire.sandbox.dns.server import Answerer, serve

    answerer = Answerer(Zone(cluster.find, cluster.all), plan.lab.dns.upstreams)
    first = worker.place.saved.first

    async def over() -> None:
        while worker.place.saved.first is first and worker.place.alive and not worker.stopping:
            ensure(cluster, plan)  # the Service may be deleted while its pod goes on
            await asyncio.sleep(CHECK * 10)

    try:
        await serve(answerer, worker.place.netns, plan.families, over)
    except OSError as error:
        log.warning("cluster DNS cannot listen: %s", error)


def _once(cluster: Cluster, resource: str, body: Object) -> None:
    meta = body["metadata"]
    if cluster.find(resource, meta["namespace"], meta["name"]) is None:
        try:
            cluster.objects.create(cluster.objects.kind(resource), meta["namespace"], body)
        except StatusError as error:
            log.warning("cannot create %s %s: %s", resource, meta["name"], error)


def _service(plan: Plan) -> Object:
    families = ["IPv4" if family == 4 else "IPv6" for family in plan.families]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"k8s-app": NAME, "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": plan.dns[0],
            "clusterIPs": list(plan.dns),
            "ipFamilies": families,
            "ipFamilyPolicy": "PreferDualStack" if len(families) > 1 else "SingleStack",
            "selector": {"k8s-app": NAME},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    }


def _pod(plan: Plan) -> Object:
    container = {
        "name": "dns",
        "image": "podwire.io/cluster-dns",
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"tcpSocket": {"port": 53}, "periodSeconds": 5},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"k8s-app": NAME}},
        "spec": {
            "nodeName": plan.nodes[0].name,
            "dnsPolicy": "Default",
            "priorityClassName": "system-cluster-critical",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }
