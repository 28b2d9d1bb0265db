"""Policy computed by difference: what changes, what stays, and in which order."""

from __future__ import annotations

from typing import Any

from podwire.abi.enums import PolicyVerdict
from podwire.model.rule import Direction
from podwire.state.tables import ContainerPort
from podwire.testing.walk import Walk

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY, DEFAULT_DENY = PolicyVerdict.ALLOW, PolicyVerdict.DENY, PolicyVerdict.DEFAULT_DENY


def cnp(name: str, **spec: Any) -> dict[str, Any]:
    spec.setdefault("endpointSelector", {"matchLabels": {"app": "web"}})
    return {
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def from_app(app: str, *ports: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"fromEndpoints": [{"matchLabels": {"app": app}}]}
    if ports:
        entry["toPorts"] = [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}]
    return entry


def two_pods() -> Walk:
    walk = Walk()
    walk.endpoint(1, "web", {"app": "web"}, ipv4="10.0.1.1")
    walk.endpoint(2, "client", {"app": "client"}, ipv4="10.0.1.2")
    walk.settle()
    return walk


def identity(walk: Walk, endpoint: int) -> int:
    row = walk.tables.endpoints.get(endpoint)
    assert row is not None and row.identity
    return row.identity


def test_endpoints_get_identities_and_addresses() -> None:
    walk = two_pods()
    assert walk.identity_at("10.0.1.1") == identity(walk, 1)
    assert walk.identity_at("10.0.1.2") == identity(walk, 2)
    assert walk.identity_at("8.8.8.8") == 2
    written = "identities selections ipcache rules endpoint_policies policy_peers policy_entries"
    assert all(walk.tables.named(name).ready for name in written.split())


def test_without_policies_nothing_is_enforced() -> None:
    walk = two_pods()
    row = walk.tables.endpoint_policies.get(1)
    assert row is not None and (row.policy, row.enforce_ingress, row.enforce_egress) == (0, False, False)


def test_a_policy_allows_what_it_says_and_denies_the_rest() -> None:
    walk = two_pods()
    walk.apply(cnp("allow", ingress=[from_app("client", "80")]))
    walk.settle()
    client = identity(walk, 2)
    assert walk.verdict(1, INGRESS, client, 6, 80)[0] == ALLOW
    assert walk.verdict(1, INGRESS, client, 6, 81)[0] == DEFAULT_DENY
    assert walk.verdict(1, INGRESS, 2, 6, 80)[0] == DEFAULT_DENY
    assert walk.verdict(1, EGRESS, client, 6, 81)[0] == ALLOW
    allowed = walk.tables.rules.get(walk.verdict(1, INGRESS, client, 6, 80)[2])
    denied = walk.tables.rules.get(walk.verdict(1, INGRESS, client, 6, 81)[2])
    assert allowed is not None and (str(allowed.origins[0]), allowed.clause) == (
        "default/allow",
        "ingress[0]",
    )
    assert denied is not None and denied.default_deny and str(denied.origins[0]) == "default/allow"


def test_the_node_always_reaches_its_pods() -> None:
    walk = two_pods()
    walk.apply(cnp("allow", ingress=[from_app("client", "80")]))
    walk.settle()
    assert walk.verdict(1, INGRESS, 1, 6, 12345)[0] == ALLOW
    walk.apply(cnp("deny", ingressDeny=[{"fromEntities": ["host"]}]))
    walk.settle()
    verdict, _, number = walk.verdict(1, INGRESS, 1, 6, 12345)
    rule = walk.tables.rules.get(number)
    assert verdict == ALLOW and rule is not None and rule.origins[0].name == "allow-localhost-ingress"


def test_a_replica_costs_its_row_only() -> None:
    walk = two_pods()
    walk.apply(cnp("allow", ingress=[from_app("client", "80")]))
    walk.settle()
    before = (len(walk.tables.policy_entries), len(walk.tables.policy_peers), len(walk.tables.rules))
    walk.endpoint(3, "web-2", {"app": "web"}, ipv4="10.0.1.3")
    walk.settle()
    after = (len(walk.tables.policy_entries), len(walk.tables.policy_peers), len(walk.tables.rules))
    assert before == after
    one, two = walk.tables.endpoint_policies.get(1), walk.tables.endpoint_policies.get(3)
    assert one is not None and two is not None and one.policy == two.policy != 0


def test_an_identity_more_is_a_row_more() -> None:
    walk = two_pods()
    walk.apply(cnp("allow", ingress=[{"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "80"}]}]}]))
    walk.settle()
    entries, peers = len(walk.tables.policy_entries), len(walk.tables.policy_peers)
    walk.endpoint(3, "other", {"app": "other"}, ipv4="10.0.1.3")
    walk.settle()
    assert (len(walk.tables.policy_entries), len(walk.tables.policy_peers)) == (entries, peers + 1)
    assert walk.verdict(1, INGRESS, identity(walk, 3), 6, 80)[0] == ALLOW


def test_a_policy_that_goes_takes_its_rows_with_it() -> None:
    walk = two_pods()
    walk.apply(cnp("allow", ingress=[from_app("client", "80")]))
    walk.settle()
    walk.tables.policies.delete(("CiliumNetworkPolicy", "default", "allow"))
    walk.settle()
    assert not len(walk.tables.policy_entries) and not len(walk.tables.policy_peers)
    assert [str(row.selector) for row in walk.tables.selections] == ["has reserved:host"]
    row = walk.tables.endpoint_policies.get(1)
    assert row is not None and (row.policy, row.enforce_ingress) == (0, False)
    assert len(walk.tables.rules) > 0  # flows of a moment ago are still explained


def test_the_order_of_objects_and_endpoints_makes_no_difference() -> None:
    one, two = Walk(), Walk()
    policies = [cnp("a", ingress=[from_app("client", "80")]), cnp("b", ingress=[from_app("other")])]
    one.apply(*policies)
    one.settle()
    one.endpoint(1, "web", {"app": "web"})
    one.endpoint(2, "client", {"app": "client"})
    one.settle()
    two.endpoint(2, "client", {"app": "client"})
    two.endpoint(1, "web", {"app": "web"})
    two.settle()
    for policy in reversed(policies):
        two.apply(policy)
        two.settle()
    for name in ("policy_entries", "policy_peers", "rules"):
        assert set(one.tables.named(name)) >= set(two.tables.named(name)) or name == "rules"
        if name != "rules":
            assert set(one.tables.named(name)) == set(two.tables.named(name))


def test_a_changed_policy_is_whole_before_an_endpoint_obeys_it() -> None:
    walk = two_pods()
    walk.apply(cnp("allow", ingress=[from_app("client", "80")]))
    walk.settle()
    before = walk.tables.endpoint_policies.get(1)
    walk.apply(cnp("allow", ingress=[from_app("client", "81")]))
    seen: list[str] = []
    tables = walk.tables
    for table in (tables.policy_entries, tables.endpoint_policies):
        put, delete = table.put, table.delete
        table.put = lambda row, name=table.name, put=put: seen.append(f"put {name}") or put(row)  # type: ignore
        table.delete = lambda key, name=table.name, delete=delete: seen.append(f"del {name}") or delete(key)  # type: ignore
    begin, end = tables.policy_peers.begin, tables.policy_peers.end
    tables.policy_peers.begin = lambda *side: seen.append("put policy_peers") or begin(*side)  # type: ignore
    tables.policy_peers.end = lambda *side: seen.append("del policy_peers") or end(*side)  # type: ignore
    walk.settle()
    after = tables.endpoint_policies.get(1)
    assert before is not None and after is not None and before.policy != after.policy
    assert list(dict.fromkeys(seen)) == [
        "put policy_entries",
        "put policy_peers",
        "put endpoint_policies",
        "del policy_peers",
        "del policy_entries",
    ]
    assert {row.policy for row in tables.policy_entries} == {after.policy}


def test_named_ports_of_the_endpoint_decide_on_ingress() -> None:
    walk = Walk()
    walk.endpoint(1, "web", {"app": "web"}, ports=[ContainerPort("http", 8080, 6)])
    walk.endpoint(2, "web-new", {"app": "web"}, ports=[ContainerPort("http", 9090, 6)])
    walk.endpoint(3, "client", {"app": "client"})
    walk.apply(cnp("allow", ingress=[from_app("client", "http")]))
    walk.settle()
    client = identity(walk, 3)
    assert [walk.verdict(1, INGRESS, client, 6, port)[0] for port in (8080, 9090)] == [ALLOW, DEFAULT_DENY]
    assert [walk.verdict(2, INGRESS, client, 6, port)[0] for port in (8080, 9090)] == [DEFAULT_DENY, ALLOW]


def test_a_prefix_is_known_to_policies_before_addresses_are_of_it() -> None:
    walk = two_pods()
    walk.apply(cnp("deny-world", egressDeny=[{"toEntities": ["world"]}]))
    walk.settle()
    peers = walk.tables.policy_peers
    put = walk.tables.ipcache.put
    seen: list[int] = []

    def watched(row: Any) -> bool:
        if row.source == "cidr":
            obeyed = walk.tables.endpoint_policies.get(1)
            assert obeyed is not None
            assert (obeyed.policy, EGRESS, row.identity) in peers, "published before policies knew it"
            seen.append(row.identity)
        return put(row)

    walk.tables.ipcache.put = watched  # type: ignore[method-assign]
    walk.apply(
        {
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "client", "namespace": "default"},
            "spec": {
                "endpointSelector": {"matchLabels": {"app": "client"}},
                "egress": [{"toCIDR": ["192.168.0.0/16"]}],
            },
        }
    )
    walk.settle()
    assert seen
    assert walk.verdict(1, EGRESS, walk.identity_at("192.168.1.1"), 6, 80)[0] == DENY
    assert walk.verdict(2, EGRESS, walk.identity_at("192.168.1.1"), 6, 80)[0] == ALLOW
    assert walk.verdict(2, EGRESS, walk.identity_at("8.8.8.8"), 6, 80)[0] == DEFAULT_DENY


def test_a_prefix_nobody_names_any_more_goes_from_the_ipcache_first() -> None:
    walk = two_pods()
    walk.apply(cnp("out", egress=[{"toCIDR": ["192.168.0.0/16"]}]))
    walk.settle()
    number = walk.identity_at("192.168.1.1")
    assert number >= 1 << 24
    gone: list[str] = []
    identities, ipcache = walk.tables.identities, walk.tables.ipcache
    one, two = identities.delete, ipcache.delete
    identities.delete = lambda key: gone.append(f"identity {key}") or one(key)  # type: ignore
    ipcache.delete = lambda key: gone.append(f"prefix {key}") or two(key)  # type: ignore
    walk.tables.policies.delete(("CiliumNetworkPolicy", "default", "out"))
    walk.settle()
    assert gone == ["prefix 192.168.0.0/16", f"identity {number}"]


def test_policy_modes() -> None:
    always, never = Walk(enable_policy="always"), Walk(enable_policy="never")
    for walk in (always, never):
        walk.endpoint(1, "web", {"app": "web"})
        walk.apply(cnp("allow", endpointSelector={"matchLabels": {"app": "other"}}, ingress=[{}]))
        walk.settle()
    assert always.verdict(1, EGRESS, 2, 6, 80)[0] == DEFAULT_DENY
    assert always.verdict(1, INGRESS, 1, 6, 80)[0] == ALLOW
    never.apply(cnp("allow", ingress=[{}]))
    never.settle()
    assert never.verdict(1, INGRESS, 2, 6, 80)[0] == ALLOW
