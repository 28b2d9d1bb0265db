"""The cluster's identities: which number stands for which set of labels, agreed on by all nodes.

An identity is a CiliumIdentity object: its name is the number, ``security-labels`` are the labels.
Whoever creates the object has taken the number; the API refuses a second one of that name.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from podwire import kube
from podwire.base.aio import Channel
from podwire.base.errors import ApiError, Unreachable
from podwire.kube.resources import CILIUM_IDENTITIES
from podwire.model.cluster import DEFAULT
from podwire.model.labels import NAMESPACE, Labels, canonical, label, split

NOT_OF_PODS = ("cidr", "reserved")  # sources of labels that an object of the API cannot give
CREATE_TRIES = 5
UNUSED = "podwire.io/unused-since"  # annotation: the operator found nobody that uses it
log = logging.getLogger(__name__)


class Known(msgspec.Struct, frozen=True):
    """`number` stands for `labels`. `unused`: the operator found nobody that uses it, and will delete it."""

    number: int
    labels: Labels
    unused: bool = False


class Gone(msgspec.Struct, frozen=True):
    """`number` stands for nothing any more."""

    number: int


class Synced(msgspec.Struct, frozen=True):
    """All that existed has been told."""


Event = Known | Gone | Synced


class IdentityStore(Protocol):
    """Where identities are kept."""

    async def create(self, number: int, labels: Labels) -> Labels | None:
        """Take `number` for `labels`. None = done; else the labels that have it already.

        Raises ApiError or Unreachable.
        """
        ...

    async def hold(self, number: int) -> None:
        """Somebody uses `number`, whatever the operator found. One that is gone already stays so."""
        ...

    def watch(self) -> AsyncIterator[Event]:
        """All identities, `Synced`, then what changes, for ever."""
        ...


class _Metadata(msgspec.Struct, frozen=True):
    annotations: dict[str, str] | None = None


class CiliumIdentity(msgspec.Struct, frozen=True):
    """What of the object is read; its name is the number."""

    labels: dict[str, str] = msgspec.field(name="security-labels")
    metadata: _Metadata = _Metadata()


_decode = msgspec.json.Decoder(CiliumIdentity).decode


class KubeIdentities:
    """CiliumIdentity objects of the Kubernetes API. `numbers` are those this cluster may give."""

    def __init__(self, client: kube.Api, numbers: range = DEFAULT.numbers) -> None:
        self._client = client
        self._numbers = numbers

    async def create(self, number: int, labels: Labels) -> Labels | None:
        for _ in range(CREATE_TRIES):
            try:
                await self._client.create(CILIUM_IDENTITIES, document(number, labels))
            except ApiError as error:
                if error.code != 409:
                    raise
            else:
                return None
            try:
                existing = await self._client.get(CILIUM_IDENTITIES, str(number))
            except ApiError as gone:
                if gone.code != 404:
                    raise
                continue  # deleted between the two: the next try decides
            known = read(str(number), msgspec.json.encode(existing), self._numbers)
            return () if known is None else known.labels
        raise Unreachable(f"identity {number} is there and is not, each time it is asked for")

    async def hold(self, number: int) -> None:
        try:
            patch = {"metadata": {"annotations": {UNUSED: None}}}
            await self._client.patch(CILIUM_IDENTITIES, str(number), patch)
        except ApiError as error:
            if error.code != 404:
                raise

    async def watch(self) -> AsyncIterator[Event]:
        async for event in self._client.watch(CILIUM_IDENTITIES):
            if event.kind == "SYNCED":
                yield Synced()
            elif event.kind == "DELETED":
                if number := number_of(event.name, self._numbers):
                    yield Gone(number)
            elif event.kind in ("ADDED", "MODIFIED"):
                known = _read_or_name(event, self._numbers)
                if known is not None:
                    yield known


def document(number: int, labels: Labels) -> dict[str, Any]:
    """The object of an identity. Its metadata has the labels too, as far as Kubernetes allows them."""
    texts = {f"{source}:{key}": value for source, key, value in map(split, labels)}
    namespace = texts.get(f"k8s:{NAMESPACE}")
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {"name": str(number), "labels": {NAMESPACE: namespace} if namespace else {}},
        "security-labels": texts,
    }


def number_of(name: str, numbers: range = DEFAULT.numbers) -> int:
    """The number an object's name stands for; 0 for none of `numbers`, which are the cluster's."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 10 else 0
    return number if number in numbers else 0


def read(name: str, raw: bytes | msgspec.Raw, numbers: range = DEFAULT.numbers) -> Known | None:
    """An object as an identity; None, and a line in the log, if it is not a usable one."""
    number = number_of(name, numbers)
    try:
        decoded = _decode(raw) if number else None
    except msgspec.ValidationError:
        decoded = None
    if decoded is None:
        log.warning("CiliumIdentity %s is ignored: it is no number of a cluster's identity with labels", name)
        return None
    found = [label(*split(f"{key}=")[:2], value) for key, value in decoded.labels.items()]
    if claims := [one for one in found if split(one)[0] in NOT_OF_PODS]:
        log.warning("CiliumIdentity %s is ignored: no pod has the label %s", name, claims[0])
        return None
    return Known(number, canonical(found), UNUSED in (decoded.metadata.annotations or {}))


def _read_or_name(event: kube.Event, numbers: range) -> Known | None:
    try:
        return read(event.name, event.raw, numbers)
    except Exception:  # a fault of ours over one object must not end the watch of all others
        log.exception("CiliumIdentity %s is ignored, it cannot be read", event.name)
        return None


class MemoryIdentities:
    """Identities that live as long as this value; for clusters that are one process."""

    def __init__(self) -> None:
        self.known: dict[int, Labels] = {}
        self._watchers: list[Channel[Event]] = []

    def take(self, number: int, labels: Labels) -> Labels | None:
        """`create`, at once."""
        if number in self.known:
            return self.known[number]
        self.known[number] = labels
        self._tell(Known(number, labels))
        return None

    async def create(self, number: int, labels: Labels) -> Labels | None:
        return self.take(number, labels)

    async def hold(self, number: int) -> None:
        """Nobody marks or deletes here what is not used."""

    def remove(self, number: int) -> None:
        if self.known.pop(number, None) is not None:
            self._tell(Gone(number))

    async def watch(self) -> AsyncIterator[Event]:
        channel: Channel[Event] = Channel(65536)
        for number, labels in self.known.items():
            channel.offer(Known(number, labels))
        channel.offer(Synced())
        self._watchers.append(channel)
        try:
            async for event in channel:
                yield event
        finally:
            self._watchers.remove(channel)

    def _tell(self, event: Event) -> None:
        for channel in self._watchers:
            channel.offer(event)
