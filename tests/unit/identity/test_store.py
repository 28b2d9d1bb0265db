"""Identities as objects of the API, and back."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from podwire.stores.identities import Gone, Known, MemoryIdentities, Synced, document, read
from podwire.testing.walk import Walk

WEB = Walk.labels({"app": "web", "empty": ""}, "prod", {"team": "red"})


def test_an_identity_survives_being_an_object() -> None:
    body = document(300, WEB)
    assert body["metadata"]["name"] == "300"
    assert body["security-labels"]["k8s:app"] == "web"
    assert read("300", msgspec.json.encode(body)) == Known(300, WEB)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("300", None),
        ("300", {}),
        ("web", {"security-labels": {}}),
        ("255", {"security-labels": {}}),
        ("65536", {"security-labels": {}}),
        ("9" * 5000, {"security-labels": {}}),
        ("300", {"metadata": {"name": "300"}}),
        ("300", {"security-labels": ["k8s:app=web"]}),
        ("300", {"security-labels": {"k8s:app": 5}}),
        ("300", {"security-labels": {"cidr:nowhere": ""}}),
        ("300", {"security-labels": {"k8s:app": "web", "reserved:host": ""}}),
    ],
)
def test_objects_that_are_no_identities_are_ignored(name: str, body: Any) -> None:
    assert read(name, msgspec.json.encode(body)) is None


def test_a_store_tells_what_is_there_and_what_changes() -> None:
    async def scenario() -> None:
        store = MemoryIdentities()
        assert await store.create(300, WEB) is None
        assert await store.create(300, ("k8s:app=db",)) == WEB
        events = store.watch()
        assert [await anext(events), await anext(events)] == [Known(300, WEB), Synced()]
        store.take(301, ("k8s:app=db",))
        store.remove(300)
        assert [await anext(events), await anext(events)] == [Known(301, ("k8s:app=db",)), Gone(300)]
        await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(scenario())
