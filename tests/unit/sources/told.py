"""Events as the API tells them, from objects as tests write them."""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.kube import Event


def told(kind: str, item: dict[str, Any]) -> Event:
    metadata = item["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "")
    return Event(kind, namespace, name, msgspec.json.encode(item))
