"""bpf/lib/endpoint.h: the pods of this node, by address and by the device they send on.

Neither map is truthful: what is kept of an endpoint that could not be written is what it obeyed until then.
"""

from __future__ import annotations

from podwire.abi import structs
from podwire.bpf.map import ADDRESS, U32
from podwire.datapath import rows
from podwire.datapath.epochs import of_address
from podwire.datapath.rows import Entries
from podwire.datapath.spec import EVERYWHERE, Lack, MapSpec, Rows, Setting, Step, Told, Written, each
from podwire.state.tables import EndpointRow


def _value(row: EndpointRow, setting: Setting) -> bytes:
    return rows.endpoint_value(row, setting.tables.endpoint_policies.get(row.id)).pack()


def _by_address(row: EndpointRow, setting: Setting) -> Entries:
    return dict.fromkeys(rows.endpoint_addresses(row), _value(row, setting))


def _by_device(row: EndpointRow, setting: Setting) -> Entries:
    return {U32.pack(row.ifindex): _value(row, setting)} if row.ifindex else {}


LOOKED_AT = ("endpoint_policies", "devices")
BY_ADDRESS = MapSpec(
    "podwire_endpoints",
    ADDRESS,
    structs.Endpoint,
    "address → pod of this node, or the node",
    EVERYWHERE,
    title="Endpoints",
    written=Written(
        step=Step.ENDPOINTS,
        rows=(
            # The node's own addresses never take a pod's row; when the pod goes they are the node's again.
            each("nodes", rows.node_addresses, yields=True),
            each("local_addresses", rows.local_address, yields=True),
            Rows("endpoints", _by_address, told=Told.SWITCHING, looks_at=LOOKED_AT),
        ),
        lack=Lack.JUDGED,
        truthful=False,
        asks=of_address,
    ),
)
BY_DEVICE = MapSpec(
    "podwire_devices",
    U32,
    structs.Endpoint,
    "device → pod of this node",
    EVERYWHERE,
    written=Written(
        step=Step.ENDPOINTS,
        rows=(Rows("endpoints", _by_device, told=Told.SWITCHING, looks_at=LOOKED_AT),),
        lack=Lack.NOTHING,
        truthful=False,
        asks=None,  # the endpoint's own epoch tells, which stands in its row
    ),
)
MAPS = (BY_ADDRESS, BY_DEVICE)
