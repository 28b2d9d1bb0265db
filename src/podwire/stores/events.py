"""Events: what somebody says about an object, told to the API. Said again, it is counted."""

from __future__ import annotations

from typing import Any

from podwire.base.errors import ApiError
from podwire.kube.api import Writes
from podwire.kube.resources import EVENTS
from podwire.model.event import again

Object = dict[str, Any]
_GOING = (403, 404)  # the namespace ends, or has: nobody is left to be told


async def say(api: Writes, event: Object) -> None:
    """`event` is of `podwire.model.event`: its name is made of what it says."""
    namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
    try:
        try:
            await api.create(EVENTS, event, namespace)
        except ApiError as error:
            if error.code != 409:
                raise
            before = await api.get(EVENTS, name, namespace)
            await api.patch(EVENTS, name, again(before, event), namespace)
    except ApiError as error:
        if error.code not in _GOING:
            raise
