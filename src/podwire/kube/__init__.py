"""The one door to a Kubernetes API, embedded or real.

`Api` is what its users know of it: `Client` serves that over HTTP, and the embedded API in its own process
(`podwire.apiserver.local`). `watch` turns list and watch into one consistent, endless stream of events;
`manifests` reads YAML files. Resources are named by `Resource` values.
"""

from podwire.kube.api import MERGE, STRATEGIC, Api, Watches, Writes
from podwire.kube.client import Client
from podwire.kube.resources import Resource
from podwire.kube.watch import Event

__all__ = ["MERGE", "STRATEGIC", "Api", "Client", "Event", "Resource", "Watches", "Writes"]
