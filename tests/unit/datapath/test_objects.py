"""Which objects, and what is said about a kernel that takes none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwire.base.errors import NotFound
from podwire.bpf import probe
from podwire.datapath import objects


def test_a_kernel_that_is_too_old_is_refused_in_one_sentence() -> None:
    known = {name: (since, what) for name, since, what in probe.declared()}
    missing = [probe.Feature(name, *known[name], False) for name in objects.REQUIRED[-2:]]
    refused = objects.too_old("5.4.0-1-amd64", missing)
    assert str(refused) == (
        "podwire on Linux 5.4.0-1-amd64, which is without bpf_redirect_peer (Linux 5.10), "
        "bpf_redirect_neigh (Linux 5.10), is not supported here (Linux 5.10 and later have it)"
    )
    assert refused.hint == "docs/reference/kernels.md says what works from which kernel on"


def test_what_is_asked_of_a_kernel_is_probed_for() -> None:
    names = {name for name, _, _ in probe.declared()}
    assert {*objects.MODERN, *objects.REQUIRED} <= names
    oldest = tuple(map(int, objects.OLDEST.split(".")))
    for name, since, _ in probe.declared():
        if name in objects.REQUIRED:
            assert tuple(map(int, since.split("."))) <= oldest


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask the kernel")
def test_a_directory_without_objects_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=str(tmp_path)):
        objects.directory(str(tmp_path))
