"""What kube-controller-manager and kube-scheduler do, as far as a sandbox needs it. An emulation.

In a real cluster these are Kubernetes' own, so nothing here is part of the product and nothing of the
product may need it: what podwire itself does for a whole cluster is `podwire.operator`, written on an API
that may be a real one. These are written on the embedded API's own objects, in its process.

Each looks at one object at a time and makes the world a little more as it says; `loop` calls them
when something they watch has changed. All of it is synchronous on the server's own objects, so that
what a controller sees is never behind.
"""

from contextlib import closing

from podwire.apiserver import ApiServer
from podwire.apiserver.objects import Objects
from podwire.controllermanager.collect import GarbageCollector
from podwire.controllermanager.daemonsets import DaemonSets
from podwire.controllermanager.deployments import Deployments
from podwire.controllermanager.endpoints import EndpointSlices
from podwire.controllermanager.loop import Controller, Controllers
from podwire.controllermanager.mirror import EndpointsMirror
from podwire.controllermanager.namespaces import Namespaces
from podwire.controllermanager.nodes import Nodes
from podwire.controllermanager.replicasets import ReplicaSets
from podwire.controllermanager.schedule import Scheduler

__all__ = ["Controller", "Controllers", "run", "standard"]


def standard(objects: Objects, authority: bytes) -> Controllers:
    """All of them. `authority` is the cluster's CA, PEM."""
    return Controllers(
        objects,
        [
            Namespaces(objects, authority),
            GarbageCollector(objects),
            EndpointSlices(objects),
            EndpointsMirror(objects),
            Deployments(objects),
            ReplicaSets(objects),
            DaemonSets(objects),
            Scheduler(objects),
            Nodes(objects),
        ],
    )


async def run(server: ApiServer) -> None:
    """All of them on the objects of a server in this process, for ever."""
    with closing(standard(server.objects, server.authority.pem)) as controllers:
        await controllers.run()
