"""What the guide says the operator has to be allowed is what it asks for: no more, and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.loopback.kube.apis import both_ways
from tests.loopback.operator.worlds import World, run

from podwire.base.aio import cancelling, eventually
from podwire.kube import resources
from podwire.kube.lease import Election
from podwire.operator.controllers import Controllers
from podwire.operator.wiring import Settings, made
from podwire.stores.identities import UNUSED, document

GUIDE = Path(__file__).parents[3] / "docs/guides/operator.md"
SPEC = {"endpointSelector": {}, "ingress": [{}]}


def allowed() -> set[tuple[str, str]]:
    """(resource, verb) of the table."""
    found = set()
    for row in re.findall(r"^\| (?!resources)([^|]+) \| ([a-z, ]+) \|$", GUIDE.read_text(), re.M):
        names = re.findall(r"[a-z]+", re.sub(r", (?:with|in) .*", "", row[0]))
        if names[0] == "their":
            names = ["ciliumnetworkpolicies/status", "ciliumclusterwidenetworkpolicies/status"]
        found |= {(name, verb) for name in names for verb in row[1].split(", ")}
    return found


class Noting:
    """An API that notes what it is asked for."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.asked: set[tuple[str, str]] = set()

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._api, verb)

        def ask(resource: Any, *arguments: Any, **named: Any) -> Any:
            part = f"/{named['subresource']}" if named.get("subresource") else ""
            verbs = ("list", "watch") if verb == "watch" else (verb,)
            self.asked |= {(resource.plural + part, one) for one in verbs}
            return method(resource, *arguments, **named)

        return ask


@both_ways
def test_the_table_of_the_guide(way: str, tmp_path: Path) -> None:
    async def test(world: World) -> None:
        api = world.api
        policy = {"metadata": {"name": "p"}, "spec": SPEC}
        await api.create(resources.CILIUM_NETWORK_POLICIES, policy, "default")
        await api.create(resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES, policy)
        identity = document(300, ("k8s:app=a",))
        identity["metadata"]["annotations"] = {UNUSED: "some time"}
        await api.create(resources.CILIUM_IDENTITIES, identity)
        await api.create(resources.CILIUM_IDENTITIES, document(301, ("k8s:app=b",)))
        await api.create(resources.CILIUM_ENDPOINTS, {"metadata": {"name": "e"}}, "default")
        await api.create(resources.CILIUM_NODES, {"metadata": {"name": "n9"}, "spec": {}})
        for name in ("n1", "n2"):
            await api.create(resources.NODES, {"metadata": {"name": name}})
        noting: Any = Noting(api)
        settings = Settings(identity_grace=0.01, orphan_grace=0.01, pools=(("10.1.0.0/24", 24),))

        async def work(led: Any) -> None:
            await Controllers(noting, made(noting, lambda _: None, settings)).run()

        election = Election(noting, "work", "anna", retry=0.01)
        expected = allowed()
        # An Event that is said again needs two verbs more; the operator says each once while it runs.
        again = {("events", "get"), ("events", "patch")}
        async with cancelling("lead", election.lead(work)):
            await eventually(lambda: noting.asked >= expected - again, timeout=20, what="all requests")
        assert noting.asked <= expected

    run(way, tmp_path, test)
