"""bpf/lib/socket.h: what a socket's Service was exchanged for."""

from __future__ import annotations

from podwire.bpf.map import U64, raw
from podwire.datapath.spec import MapSpec

MAPS = (
    MapSpec("podwire_sockets", U64, raw(40), "connected socket → what Service it asked", ("sock",)),
    MapSpec(
        "podwire_socket_services", raw(4), raw(168), "with each socket: what Services it asked", ("sock",)
    ),
)
