"""Numbers of clusters: which identities are whose."""

from __future__ import annotations

from itertools import pairwise

import pytest

from podwire.base.config import AgentConfig
from podwire.model import identity
from podwire.model.cluster import DEFAULT, Cluster


@pytest.mark.parametrize("most", identity.CLUSTER_SHIFTS)
def test_clusters_share_no_identity_and_have_none_that_is_reserved_or_local(most: int) -> None:
    ranges = [identity.of_cluster(one, most) for one in range(most + 1)]
    assert ranges[0][0] == 256 and ranges[-1][-1] == identity.LOCAL_FIRST - 1
    assert all(before.stop == after.start for before, after in pairwise(ranges))
    for cluster, numbers in enumerate(ranges):
        assert {identity.cluster_of(one, most) for one in (numbers[0], numbers[-1])} == {cluster}
    for number in (0, identity.HOST, 255, identity.LOCAL_FIRST, identity.LOCAL_LAST, 2 << 24):
        assert identity.cluster_of(number, most) is None


def test_the_numbers_are_ciliums() -> None:
    assert identity.of_cluster(0) == range(256, 65536)
    assert identity.of_cluster(3) == range(0x030000, 0x040000)
    assert identity.of_cluster(3, 511) == range(3 << 15, 4 << 15)
    for cluster, most in ((256, 255), (512, 511), (-1, 255)):
        with pytest.raises(ValueError, match="is no number of a cluster"):
            identity.of_cluster(cluster, most)


def test_what_is_foreign() -> None:
    east = Cluster("east", 1)
    assert east.foreign(2 << 16) and east.foreign(300)
    assert not any(map(east.foreign, (0, identity.WORLD, 1 << 16, (2 << 16) - 1, identity.LOCAL_FIRST)))
    assert not any(map(DEFAULT.foreign, (256, 65535))) and DEFAULT.foreign(65536)
    wide = Cluster("wide", 1, 511)
    assert wide.foreign(1 << 16) and not wide.foreign(1 << 15)


def test_of_the_options() -> None:
    config = AgentConfig(node_name="n1", cluster_name="east", cluster_id=300, max_connected_clusters=511)
    assert Cluster.of(config) == Cluster("east", 300, 511)
    assert Cluster.of(AgentConfig(node_name="n1")) == DEFAULT
