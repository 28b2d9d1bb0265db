"""Small controllers that stand in for what a cluster has beside its API.

Each looks at one object at a time and makes the world a little more as it says; `loop` calls them
when something they watch has changed. All of it is synchronous on the server's own objects, so that
what a controller sees is never behind.
"""

from podwire.apiserver.controllers.collect import GarbageCollector
from podwire.apiserver.controllers.daemonsets import DaemonSets
from podwire.apiserver.controllers.deployments import Deployments
from podwire.apiserver.controllers.endpoints import EndpointSlices
from podwire.apiserver.controllers.loop import Controller, Controllers
from podwire.apiserver.controllers.mirror import EndpointsMirror
from podwire.apiserver.controllers.namespaces import Namespaces
from podwire.apiserver.controllers.nodes import Nodes
from podwire.apiserver.controllers.replicasets import ReplicaSets
from podwire.apiserver.controllers.schedule import Scheduler
from podwire.apiserver.objects import Objects

__all__ = ["Controller", "Controllers", "standard"]


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
