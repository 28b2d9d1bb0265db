"""The one door to a Kubernetes API, embedded or real.

`Client` reads and writes objects; `watch` turns list and watch into one consistent, endless
stream of events; `manifests` reads YAML files. Resources are named by `Resource` values.
"""

from podwire.kube.client import Client
from podwire.kube.resources import Resource
from podwire.kube.watch import Event

__all__ = ["Client", "Event", "Resource"]
