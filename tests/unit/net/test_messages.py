"""Netlink messages as bytes, without a kernel."""

from __future__ import annotations

import struct

from podwire.base.errors import lacking
from podwire.net import messages
from podwire.net.messages import Route
from podwire.net.netlink import Failure, attribute, attributes, nested


def test_attributes_are_padded_and_read_back() -> None:
    packed = attribute(3, "eth0") + attribute(4, 1500) + nested(18, attribute(1, "veth"))
    assert len(packed) % 4 == 0
    read = attributes(packed)
    assert read[3] == b"eth0\0"
    assert struct.unpack("=I", read[4])[0] == 1500
    assert attributes(read[18])[1] == b"veth\0"


def test_what_is_cut_off_is_not_read() -> None:
    assert attributes(b"\x03\x00\x01\x00") == {}
    assert attributes(b"") == {}


def test_routes_say_family_length_and_scope() -> None:
    wide = messages.route(Route("fd00::/64", 3, via="fd01::1", mtu=1400))
    family, bits, _, _, table, protocol, scope, kind, _ = messages.RTMSG.unpack_from(wide.body)
    assert (family, bits, table, protocol, scope, kind) == (10, 64, 254, 0x70, 0, 1)
    assert wide.what == "route fd00::/64 via fd01::1 on device 3"
    direct = messages.route(Route("10.0.0.5/32", 3))
    assert messages.RTMSG.unpack_from(direct.body)[6] == messages.SCOPE_LINK
    far_table = messages.route(Route("10.0.0.0/8", 3, table=2004))
    assert messages.RTMSG.unpack_from(far_table.body)[4] == 0
    assert struct.unpack("=I", attributes(far_table.body, messages.RTMSG.size)[15])[0] == 2004


def test_a_failure_says_what_why_and_how() -> None:
    failure = Failure("route 10.0.0.0/8", 1, "denied by policy")
    assert str(failure) == "route 10.0.0.0/8: Operation not permitted (denied by policy)"
    assert failure.hint == lacking("CAP_NET_ADMIN")
