"""Who writes which table. A table is ready when all its writers have said so, each for itself.

A writer's name is its module below `podwire`; where one module has several tasks, what the task is about
stands behind a slash. One that is added here must say when it has put what there was at start
(``table.mark_ready(WRITER)``): until then nobody takes the table for whole. Editors change single rows, and
nobody waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping

from podwire.state.table import Writers

NODE = "agent.stages"  # before the API is asked: this node as it was remembered
ATTACHMENTS = "agent.attachments"
LABELING = "agent.labeling"
NETWORK = "sources.network"
ALLOCATE = "identity.allocate"
PREFIXES = "identity.prefixes"
SELECT = "identity.select"
IPCACHE = "identity.ipcache"
COMPUTE = "policy.compute"
FRONTENDS = "loadbalancer.frontends"
FAILURES = "datapath.failures"


def watched(resource: str) -> str:
    """Who follows a resource (its plural) of the API."""
    return f"sources.watch/{resource}"


POLICIES = tuple(
    map(watched, ("networkpolicies", "ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies"))
)

# In walk order.
WRITERS: Mapping[str, Writers] = {
    "namespaces": Writers((watched("namespaces"),)),
    "nodes": Writers((watched("nodes"),), editors=(NODE,)),
    "pods": Writers((watched("pods"),)),
    "services": Writers((watched("services"),)),
    "slices": Writers((watched("endpointslices"),)),
    "policies": Writers(POLICIES),
    "remote_endpoints": Writers((watched("ciliumendpoints"),)),
    "reported_endpoints": Writers((watched("ciliumendpoints"),)),
    "local_addresses": Writers((NETWORK,)),
    "devices": Writers((NETWORK,)),
    "endpoints": Writers((ATTACHMENTS,), editors=(LABELING, ALLOCATE)),
    "identities": Writers((ALLOCATE, PREFIXES)),
    "selections": Writers((SELECT,)),
    "ipcache": Writers((IPCACHE,)),
    "rules": Writers((COMPUTE,)),
    "endpoint_policies": Writers((COMPUTE,)),
    "policy_peers": Writers((COMPUTE,)),
    "policy_entries": Writers((COMPUTE,)),
    "progress": Writers((SELECT, COMPUTE)),
    "backends": Writers((FRONTENDS,)),
    "frontends": Writers((FRONTENDS,)),
    "policy_failures": Writers((FAILURES,)),
    "endpoint_failures": Writers((FAILURES,)),
}


def written_by(name: str) -> str:
    """As documents say it."""
    writers = WRITERS[name]
    modules = ", ".join(dict.fromkeys(writer.partition("/")[0] for writer in writers.names))
    return f"{modules}; edited by {', '.join(writers.editors)}" if writers.editors else modules
