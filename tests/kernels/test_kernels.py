"""podwire on the kernels people have: Debian's, from 5.10 to the newest, in emulated machines.

`results.json` is what is known of each: features, variant of the objects, instructions that the
verifier looked at. The tests hold it against what they see; `--update` writes it anew, and
`make gen` makes docs/reference/kernels.md of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.kernels.guests import CLANG_19_ON, KERNELS, WHOLE, Guest

from podwire.datapath.hooks import HOOKS

pytestmark = [pytest.mark.kernels, pytest.mark.timeout(7500 if WHOLE else 3000)]

RESULTS = Path(__file__).with_name("results.json")
DRIFT = 0.25  # of instructions; another build of a kernel or a changed line moves them a little
LIMIT = 1_000_000  # instructions a verifier looks at before it gives up
PACKETS_AT_LEAST = 300
Get = Callable[[str], Guest]


def recorded(version: str) -> Any:
    return json.loads(RESULTS.read_text()).get(version) if RESULTS.exists() else None


def seen(guest: Guest) -> dict[str, Any]:
    """What `results.json` keeps of it."""
    own = next(iter(guest.kernel["loads"].values()))
    return {
        "release": guest.kernel["release"],
        "variant": guest.kernel["variant"],
        "features": guest.kernel["features"],
        "instructions": own,
        "checks": [word.removeprefix("--") for word in KERNELS[guest.version]],
    }


@pytest.mark.parametrize("version", KERNELS)
def test_every_program_loads(version: str, guest: Get) -> None:
    own = next(iter(guest(version).kernel["loads"].values()))
    refused = {name: counts for name, counts in own.items() if not all(type(one) is int for one in counts)}
    assert not refused
    assert len(own) == len(HOOKS)
    # 5.10 follows each call of a function anew.
    assert max(max(counts) for counts in own.values()) < LIMIT / 2


@pytest.mark.parametrize("version", KERNELS)
def test_the_record_is_what_the_kernel_says(version: str, guest: Get) -> None:
    now = seen(guest(version))
    if os.environ.get("PODWIRE_UPDATE"):
        everything = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        everything[version] = now
        ordered = {each: everything[each] for each in sorted(KERNELS, key=_age) if each in everything}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    kept = recorded(version)
    assert kept, "nothing is recorded: make test-kernels TESTS=--update"
    for field in ("variant", "features", "checks"):
        assert now[field] == kept[field], "if that is right: make test-kernels TESTS=--update && make gen"
    assert set(now["instructions"]) == set(kept["instructions"])
    far = {
        name: (counts, kept["instructions"][name])
        for name, counts in now["instructions"].items()
        for one, before in zip(counts, kept["instructions"][name], strict=True)
        if abs(one - before) > DRIFT * before
    }
    assert not far, "(now, recorded) differ by much; if that is right: make test-kernels TESTS=--update"


@pytest.mark.parametrize("version", CLANG_19_ON)
def test_objects_of_another_clang_load(version: str, guest: Get, other_clang: bool) -> None:
    if not other_clang:
        pytest.skip("clang-19 is not installed")
    (other,) = list(guest(version).kernel["loads"].values())[1:]
    refused = {name: counts for name, counts in other.items() if not all(type(one) is int for one in counts)}
    assert not refused
    assert len(other) == len(HOOKS)


@pytest.mark.parametrize("version", [version for version, does in KERNELS.items() if "--demo" in does])
def test_the_demo_passes(version: str, guest: Get) -> None:
    log = guest(version).text("demo.log")
    assert guest(version).text("demo.code") == "0", log
    assert re.search(r"^All \d+ connections came out as the policy says", log, re.M), log
    assert "Not everything is removed" not in log


def suite_of(guest: Guest, name: str) -> ElementTree.Element:
    """What pytest reported in the guest; it skips there as outside, and nothing failed."""
    suite = ElementTree.fromstring(guest.text(f"{name}.xml")).find("testsuite")
    assert suite is not None
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    assert not failed, guest.text(f"{name}.log")[-6000:]
    assert guest.text(f"{name}.code") == "0", guest.text(f"{name}.log")[-3000:]
    return suite


@pytest.mark.skipif(not WHOLE, reason="a quarter of an hour in guests: make test-kernels-whole")
@pytest.mark.parametrize("version", [version for version, does in KERNELS.items() if "--packets" in does])
def test_packets(version: str, guest: Get) -> None:
    assert int(suite_of(guest(version), "packets").get("tests", "0")) >= PACKETS_AT_LEAST


@pytest.mark.skipif(not WHOLE, reason="a quarter of an hour in guests: make test-kernels-whole")
@pytest.mark.parametrize("version", [version for version, does in KERNELS.items() if "--takeover" in does])
def test_an_agent_takes_over(version: str, guest: Get) -> None:
    """Filters on devices of pods that were there are replaced without a packet lost."""
    assert int(suite_of(guest(version), "takeover").get("tests", "0")) >= 2


def _age(version: str) -> tuple[int, ...]:
    return (1000,) if version == "newest" else tuple(int(part) for part in version.split("."))
