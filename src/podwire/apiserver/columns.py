"""What kubectl get shows of the built-in kinds: head, priority (1: only with -o wide), value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

Object = dict[str, Any]
Heads = list[tuple[str, int, Callable[[Object], Any]]]


class Since(NamedTuple):
    """A cell that says how long ago an RFC 3339 time is; what it reads depends on when one looks.

    `text` is what stands around it.
    """

    time: str | None
    text: str = "{}"

    def at(self, moment: datetime) -> str:
        """As kubectl says it: 45s, 5m10s, 3h, 2d."""
        return self.text.format(self._ago(moment))

    def _ago(self, moment: datetime) -> str:
        if not self.time:
            return "<unknown>"
        try:
            then = datetime.fromisoformat(self.time)
        except ValueError:
            return "<invalid>"
        return "<invalid>" if then.tzinfo is None else duration(int((moment - then).total_seconds()))


def duration(seconds: int) -> str:
    """Two units at most, fewer the longer it is."""
    if seconds < -1:
        return "<invalid>"
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days < 2920 and days % 365 else f"{days // 365}y"


def age(body: Object) -> Since:
    return Since(body["metadata"].get("creationTimestamp"))


def _get(*path: str, default: Any = "") -> Callable[[Object], Any]:
    def value(body: Object) -> Any:
        for step in path:
            body = (body or {}).get(step)  # type: ignore[assignment]
        return default if body is None else body

    return value


def _statuses(body: Object) -> list[Object]:
    found: list[Object] = body.get("status", {}).get("containerStatuses") or []
    return found


def _pod_ready(body: Object) -> str:
    ready = sum(bool(one.get("ready")) for one in _statuses(body))
    return f"{ready}/{len(body.get('spec', {}).get('containers') or [])}"


def _pod_status(body: Object) -> str:
    status = body.get("status", {})
    reason = status.get("reason") or status.get("phase") or "Unknown"
    for index, one in enumerate(status.get("initContainerStatuses") or []):
        state = one.get("state") or {}
        ended = state.get("terminated")
        if ended and ended.get("exitCode") == 0:
            continue
        waiting = (state.get("waiting") or {}).get("reason")
        if ended:
            reason = "Init:" + (ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
        elif waiting and waiting != "PodInitializing":
            reason = "Init:" + waiting
        else:
            reason = f"Init:{index}/{len(status['initContainerStatuses'])}"
        break
    else:
        for one in reversed(_statuses(body)):
            state = one.get("state") or {}
            ended, waiting = state.get("terminated"), state.get("waiting")
            if waiting and waiting.get("reason"):
                reason = waiting["reason"]
            elif ended:
                reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"
    if body["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(reason)


def _pod_restarts(body: Object) -> str | Since:
    count = sum(int(one.get("restartCount") or 0) for one in _statuses(body))
    ended = [(one.get("lastState") or {}).get("terminated") for one in _statuses(body)]
    last = max((one.get("finishedAt") or "" for one in ended if one), default="")
    return Since(last, f"{count} ({{}} ago)") if count and last else str(count)


def _pod_gates(body: Object) -> str:
    gates = body.get("spec", {}).get("readinessGates") or []
    if not gates:
        return "<none>"
    conditions = {one["type"]: one["status"] for one in body.get("status", {}).get("conditions") or []}
    return f"{sum(conditions.get(one['conditionType']) == 'True' for one in gates)}/{len(gates)}"


def _node_status(body: Object) -> str:
    ready = next(
        (c["status"] for c in body.get("status", {}).get("conditions") or [] if c["type"] == "Ready"), None
    )
    words = [{"True": "Ready", None: "Unknown"}.get(ready, "NotReady")]
    if body.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(body: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = [
        key.removeprefix(prefix) for key in body["metadata"].get("labels") or {} if key.startswith(prefix)
    ]
    return ",".join(sorted(roles)) or "<none>"


def _node_address(kind: str) -> Callable[[Object], str]:
    def value(body: Object) -> str:
        found = [
            one["address"] for one in body.get("status", {}).get("addresses") or [] if one["type"] == kind
        ]
        return found[0] if found else "<none>"

    return value


def _service_external(body: Object) -> str:
    spec = body["spec"]
    ingress = (body.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName"))
        case "LoadBalancer":
            found = [one.get("ip") or one.get("hostname") or "" for one in ingress]
            return ",".join([*found, *(spec.get("externalIPs") or [])]) or "<pending>"
    return ",".join(spec.get("externalIPs") or []) or "<none>"


def _service_ports(body: Object) -> str:
    shown = []
    for port in body["spec"].get("ports") or []:
        number = f"{port['port']}:{port['nodePort']}" if port.get("nodePort") else f"{port['port']}"
        shown.append(f"{number}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or "<none>"


def selector_text(selector: Any) -> str:
    """A label selector in one line."""
    if not selector:
        return "<none>"
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for one in selector.get("matchExpressions") or []:
        values = ",".join(one.get("values") or [])
        forms = {"In": f"{one['key']} in ({values})", "NotIn": f"{one['key']} notin ({values})"}
        forms |= {"Exists": one["key"], "DoesNotExist": "!" + one["key"]}
        terms.append(forms.get(one["operator"], ""))
    return ",".join(terms) or "<none>"


def _listed(items: list[str], most: int = 3) -> str:
    if not items:
        return "<none>"
    more = f" + {len(items) - most} more..." if len(items) > most else ""
    return ",".join(items[:most]) + more


def _slice_ports(body: Object) -> str:
    ports = body.get("ports")
    if not ports:
        return "<unset>"
    return _listed([str(one.get("port", "*")) for one in ports])


def _slice_endpoints(body: Object) -> str:
    found = [address for one in body.get("endpoints") or [] for address in one["addresses"][:1]]
    return _listed(found) if found else "<unset>"


def _endpoints(body: Object) -> str:
    found = []
    for subset in body.get("subsets") or []:
        for address in subset.get("addresses") or []:
            for port in subset.get("ports") or [{}]:
                host = f"[{address['ip']}]" if ":" in address["ip"] else address["ip"]
                found.append(f"{host}:{port['port']}" if port else host)
    return _listed(found)


def _containers(field: str) -> Callable[[Object], str]:
    def value(body: Object) -> str:
        return ",".join(
            one.get(field, "") for one in body["spec"]["template"]["spec"].get("containers") or []
        )

    return value


def _event_object(body: Object) -> str:
    about = body.get("involvedObject") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_seen(body: Object) -> Since:
    last = (
        (body.get("series") or {}).get("lastObservedTime")
        or body.get("lastTimestamp")
        or body.get("eventTime")
    )
    return Since(last or body["metadata"].get("creationTimestamp"))


def _event_source(body: Object) -> str:
    source = body.get("source") or {}
    parts = [source.get("component") or body.get("reportingComponent") or "", source.get("host") or ""]
    return ", ".join(part for part in parts if part)


def _event_count(body: Object) -> int:
    return int((body.get("series") or {}).get("count") or body.get("count") or 1)


def _data(*names: str) -> Callable[[Object], int]:
    return lambda body: sum(len(body.get(name) or {}) for name in names)


def _deployment_ready(body: Object) -> str:
    ready = body.get("status", {}).get("readyReplicas", 0)
    return f"{ready}/{body['spec'].get('replicas', 1)}"


def _controller(body: Object) -> str:
    owner = next(
        (one for one in body["metadata"].get("ownerReferences") or [] if one.get("controller")), None
    )
    return (
        f"{owner['kind'].lower()}.{owner['apiVersion'].split('/')[0]}/{owner['name']}" if owner else "<none>"
    )


_NONE = "<none>"
_TEMPLATE: Heads = [
    ("Containers", 1, _containers("name")),
    ("Images", 1, _containers("image")),
    ("Selector", 1, lambda body: selector_text(body["spec"].get("selector"))),
]

COLUMNS: dict[str, Heads] = {
    "pods": [
        ("Ready", 0, _pod_ready),
        ("Status", 0, _pod_status),
        ("Restarts", 0, _pod_restarts),
        ("Age", 0, age),
        ("IP", 1, lambda body: body.get("status", {}).get("podIP") or _NONE),
        ("Node", 1, lambda body: body.get("spec", {}).get("nodeName") or _NONE),
        ("Nominated Node", 1, lambda body: body.get("status", {}).get("nominatedNodeName") or _NONE),
        ("Readiness Gates", 1, _pod_gates),
    ],
    "nodes": [
        ("Status", 0, _node_status),
        ("Roles", 0, _node_roles),
        ("Age", 0, age),
        ("Version", 0, _get("status", "nodeInfo", "kubeletVersion")),
        ("Internal-IP", 1, _node_address("InternalIP")),
        ("External-IP", 1, _node_address("ExternalIP")),
        ("OS-Image", 1, _get("status", "nodeInfo", "osImage", default="<unknown>")),
        ("Kernel-Version", 1, _get("status", "nodeInfo", "kernelVersion", default="<unknown>")),
        ("Container-Runtime", 1, _get("status", "nodeInfo", "containerRuntimeVersion", default="<unknown>")),
    ],
    "services": [
        ("Type", 0, _get("spec", "type")),
        ("Cluster-IP", 0, lambda body: body["spec"].get("clusterIP") or _NONE),
        ("External-IP", 0, _service_external),
        ("Port(s)", 0, _service_ports),
        ("Age", 0, age),
        ("Selector", 1, lambda body: selector_text(body["spec"].get("selector"))),
    ],
    "endpointslices.discovery.k8s.io": [
        ("AddressType", 0, _get("addressType")),
        ("Ports", 0, _slice_ports),
        ("Endpoints", 0, _slice_endpoints),
        ("Age", 0, age),
    ],
    "endpoints": [("Endpoints", 0, _endpoints), ("Age", 0, age)],
    "configmaps": [("Data", 0, _data("data", "binaryData")), ("Age", 0, age)],
    "secrets": [("Type", 0, _get("type")), ("Data", 0, _data("data")), ("Age", 0, age)],
    "serviceaccounts": [("Secrets", 0, lambda body: len(body.get("secrets") or [])), ("Age", 0, age)],
    "namespaces": [("Status", 0, _get("status", "phase")), ("Age", 0, age)],
    "leases.coordination.k8s.io": [("Holder", 0, _get("spec", "holderIdentity")), ("Age", 0, age)],
    "events": [
        ("Last Seen", 0, _event_seen),
        ("Type", 0, _get("type")),
        ("Reason", 0, _get("reason")),
        ("Object", 0, _event_object),
        ("Subobject", 1, _get("involvedObject", "fieldPath")),
        ("Source", 1, _event_source),
        ("Message", 0, lambda body: str(body.get("message", "")).strip()),
        ("First Seen", 1, lambda body: Since(body.get("firstTimestamp") or body.get("eventTime"))),
        ("Count", 1, _event_count),
        ("Name", 1, _get("metadata", "name")),
    ],
    "deployments.apps": [
        ("Ready", 0, _deployment_ready),
        ("Up-to-date", 0, _get("status", "updatedReplicas", default=0)),
        ("Available", 0, _get("status", "availableReplicas", default=0)),
        ("Age", 0, age),
        *_TEMPLATE,
    ],
    "replicasets.apps": [
        ("Desired", 0, _get("spec", "replicas", default=1)),
        ("Current", 0, _get("status", "replicas", default=0)),
        ("Ready", 0, _get("status", "readyReplicas", default=0)),
        ("Age", 0, age),
        *_TEMPLATE,
    ],
    "daemonsets.apps": [
        ("Desired", 0, _get("status", "desiredNumberScheduled", default=0)),
        ("Current", 0, _get("status", "currentNumberScheduled", default=0)),
        ("Ready", 0, _get("status", "numberReady", default=0)),
        ("Up-to-date", 0, _get("status", "updatedNumberScheduled", default=0)),
        ("Available", 0, _get("status", "numberAvailable", default=0)),
        (
            "Node Selector",
            0,
            lambda body: selector_text(body["spec"]["template"]["spec"].get("nodeSelector")),
        ),
        ("Age", 0, age),
        *_TEMPLATE,
    ],
    "controllerrevisions.apps": [
        ("Controller", 0, _controller),
        ("Revision", 0, _get("revision", default=0)),
        ("Age", 0, age),
    ],
    "networkpolicies.networking.k8s.io": [
        ("Pod-Selector", 0, lambda body: selector_text(body.get("spec", {}).get("podSelector"))),
        ("Age", 0, age),
    ],
    "customresourcedefinitions.apiextensions.k8s.io": [
        ("Created At", 0, _get("metadata", "creationTimestamp"))
    ],
}
