"""Endpoint files: what is saved is loaded; what cannot be read is left alone; ids go round."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from podwire.agent import registry
from podwire.agent.registry import Numbers, Registry
from podwire.base.errors import Conflict, StorageError
from podwire.state.tables import ContainerPort, EndpointRow, Tables


def row(number: int) -> EndpointRow:
    return EndpointRow(
        id=number,
        namespace="prod",
        pod=f"web-{number}",
        uid="u",
        container_id=f"c{number}",
        netns="/run/netns/x",
        interface="lxc1",
        ifindex=7,
        mac="02:00:00:00:00:01",
        host_mac="02:00:00:00:00:02",
        ipv4="10.0.1.1",
        ipv6="",
        labels=("k8s:app=web",),
        identity=1234,
        ports=(ContainerPort("http", 80, 6),),
        state="ready",
        created=1.5,
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    files = Registry(tmp_path / "endpoints")
    files.save(row(1))
    files.save(row(2))
    files.save(msgspec.structs.replace(row(1), identity=99))
    files.forget(2)
    assert Registry(tmp_path / "endpoints").load() == [msgspec.structs.replace(row(1), identity=99)]


def test_a_file_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    files = Registry(tmp_path)
    files.save(row(1))
    (tmp_path / "2.json").write_text("{")
    assert files.load() == [row(1)]
    assert (tmp_path / "2.json").exists()


def test_an_empty_file_is_of_a_machine_that_lost_its_power(tmp_path: Path) -> None:
    files = Registry(tmp_path)
    files.save(row(1))
    (tmp_path / "2.json").touch()
    assert files.load() == [row(1)]
    assert [path.name for path in tmp_path.iterdir()] == ["1.json"]


def test_a_failed_save_leaves_the_old_file_whole(tmp_path: Path) -> None:
    files = Registry(tmp_path)
    files.save(row(1))
    (tmp_path / "1.json.tmp").mkdir()  # in the way
    with pytest.raises(StorageError, match="endpoint 1"):
        files.save(msgspec.structs.replace(row(1), identity=5))
    assert files.load() == [row(1)]


def test_a_file_that_cannot_be_removed_is_told_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Registry(tmp_path)
    (tmp_path / "1.json").mkdir()  # unlink refuses directories
    files.forget(1)
    assert "endpoint 1" in caplog.text


def test_an_id_is_not_soon_used_again() -> None:
    tables = Tables()
    tables.endpoints.put(row(7))
    numbers = Numbers(tables.endpoints)
    assert numbers.next() == 8
    assert numbers.next() == 9


def test_ids_go_round_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ID_LAST", 50)
    tables = Tables()
    tables.endpoints.put(row(50))
    numbers = Numbers(tables.endpoints)
    assert numbers.next() == 1
    for number in range(1, 50):
        tables.endpoints.put(row(number))
    with pytest.raises(Conflict):
        numbers.next()
