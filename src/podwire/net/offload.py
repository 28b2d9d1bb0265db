"""Offloads of a device in the calling thread's namespace, through the ethtool ioctl.

Between veths a packet carries "checksum still to be made". Whoever reads raw packets (a proxy on
AF_XDP, a capture that checks) needs it made: turn transmit checksums off on the sending side.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array

from podwire.base.errors import NetworkError

SIOCETHTOOL = 0x8946
SET = {
    "rx-checksum": 0x15,
    "tx-checksum": 0x17,
    "scatter-gather": 0x19,
    "tso": 0x1F,
    "gso": 0x24,
    "gro": 0x2C,
}
GET = {
    "rx-checksum": 0x14,
    "tx-checksum": 0x16,
    "scatter-gather": 0x18,
    "tso": 0x1E,
    "gso": 0x23,
    "gro": 0x2B,
}


def _ioctl(name: str, command: int, value: int, action: str) -> int:
    argument = array("B", struct.pack("=II", command, value))
    request = struct.pack("16sP16x", name.encode(), argument.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, SIOCETHTOOL, request)
        except OSError as error:
            raise NetworkError(f"{action} on device {name}: {error.strerror}") from error
    return int(struct.unpack("=II", argument)[1])


def enabled(name: str, offload: str) -> bool:
    return bool(_ioctl(name, GET[offload], 0, f"read {offload}"))


def ensure(name: str, offload: str, on: bool) -> None:
    """Turn `offload` (a key of SET) of device `name` on or off."""
    if enabled(name, offload) != on:
        _ioctl(name, SET[offload], int(on), f"turn {offload} {'on' if on else 'off'}")
