"""CiliumEndpoints: the pods of other nodes with the identities their agents gave them."""

from __future__ import annotations

from podwire.sources.objects import Object, address, items, mapping, name_of, number, text
from podwire.state.tables import RemoteEndpointRow


def row_of(item: Object) -> RemoteEndpointRow:
    """cilium.io/v2 CiliumEndpoint → row. Identity 0 = its agent does not know it yet."""
    namespace, name = name_of(item)
    status = mapping(item, "status")
    networking = mapping(status, "networking", "status")
    addresses = []
    for index, pair in enumerate(items(networking, "addressing", "status.networking")):
        path = f"status.networking.addressing[{index}]"
        addresses += [
            address(value, f"{path}.{family}")
            for family in ("ipv4", "ipv6")
            if (value := text(pair, family, path))
        ]
    node = text(networking, "node", "status.networking")
    return RemoteEndpointRow(
        namespace=namespace,
        name=name,
        identity=number(mapping(status, "identity", "status"), "id", "status.identity", most=(1 << 32) - 1),
        addresses=tuple(addresses),
        node_address=address(node, "status.networking.node") if node else "",
    )
