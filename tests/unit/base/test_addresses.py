"""Addresses: 16 bytes and back, for both families."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.base import addresses

any_address = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


def is_mapped(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return address.version == 6 and (address.ipv4_mapped is not None or int(address) == 0)


@given(any_address.filter(lambda text: not is_mapped(text)))
def test_an_address_survives_packing(text: str) -> None:
    assert addresses.unpack(addresses.pack(text)) == text


@given(any_address.filter(lambda text: not is_mapped(text)), st.integers(0, 128))
def test_a_prefix_survives_packing(text: str, bits: int) -> None:
    bits = min(bits, 32 if "." in text else 128)
    network = str(ipaddress.ip_network(f"{text}/{bits}", strict=False))
    assert addresses.unpack_prefix(*addresses.pack_prefix(network)) == network


def test_ipv4_prefixes_count_from_96() -> None:
    assert addresses.pack_prefix("10.0.0.0/8") == (104, addresses.pack("10.0.0.0"))
    assert addresses.pack_prefix("0.0.0.0/0")[0] == 96
    assert addresses.pack_prefix("::/0")[0] == 0


def test_no_address_is_the_empty_string() -> None:
    assert addresses.unpack(addresses.ZERO) == ""


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError):
        addresses.pack("10.0.0.256")


def test_containing_prefixes_go_from_the_longest_to_everything() -> None:
    found = [str(network) for network in addresses.containing("10.1.0.0/16")]
    assert found[0] == "10.1.0.0/16"
    assert found[-1] == "0.0.0.0/0"
    assert len(found) == 17


def test_ports_are_joined_as_in_urls() -> None:
    assert addresses.join("10.0.0.1", 80) == "10.0.0.1:80"
    assert addresses.join("fd00::1", 80) == "[fd00::1]:80"
