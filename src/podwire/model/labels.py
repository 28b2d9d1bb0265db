"""Labels as Cilium writes them: ``source:key=value``, sets of them as sorted tuples.

Sources are ``k8s``, ``reserved``, ``cidr`` (and ``any`` in selectors only). A set of labels is a
plain sorted tuple of strings: it compares, hashes, prints and travels as it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

Labels = tuple[str, ...]

NAMESPACE = "io.kubernetes.pod.namespace"
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CLUSTER = "io.cilium.k8s.policy.cluster"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
OURS = "io.cilium.k8s."  # what all keys but the namespace's begin with that are not a pod's own


def label(source: str, key: str, value: str = "") -> str:
    """``k8s:app=web``; without ``=`` where the value is empty, as for ``reserved:host``."""
    return f"{source}:{key}={value}" if value or source == "k8s" else f"{source}:{key}"


def canonical(labels: Iterable[str]) -> Labels:
    """Sorted, without doubles: equal sets are equal tuples."""
    return tuple(sorted(set(labels)))


@lru_cache(maxsize=65536)
def split(text: str) -> tuple[str, str, str]:
    """(source, key, value) of one label; a label without source is ``any``."""
    source, colon, rest = text.partition(":")
    if not colon or "=" in source:
        source, rest = "any", text
    key, _, value = rest.partition("=")
    return source, key, value


@lru_cache(maxsize=16384)
def values(labels: Labels) -> Mapping[tuple[str, str], str]:
    """(source, key) → value. Shared and cached: do not change it."""
    return {(source, key): value for source, key, value in map(split, labels)}


def cidr(prefix: str) -> str:
    """``10.0.0.0/8`` → ``cidr:10.0.0.0/8``.

    IPv6 is written with dashes, and a zero where a dash would be first or last, as in Cilium:
    ``fd00::/8`` → ``cidr:fd00--0/8``.
    """
    address, _, bits = prefix.partition("/")
    if address.startswith(":"):
        address = "0" + address
    if address.endswith(":"):
        address += "0"
    return f"cidr:{address.replace(':', '-')}/{bits}"


@lru_cache(maxsize=65536)
def network(key: str) -> tuple[int, int, int]:
    """(family, bits, address as a number without the bits after the prefix) of a ``cidr`` label's key.

    ValueError if it is no prefix.
    """
    parsed = ipaddress.ip_network(key.replace("-", ":"))
    shift = parsed.max_prefixlen - parsed.prefixlen
    return parsed.version, parsed.prefixlen, int(parsed.network_address) >> shift


def prefix_of(labels: Labels) -> str:
    """The prefix that a local identity stands for; empty if the labels name none."""
    for source, key, _ in map(split, labels):
        if source == "cidr":
            return str(ipaddress.ip_network(key.replace("-", ":")))
    return ""


def within(inner: str, outer: str) -> bool:
    """Whether one ``cidr`` label's key is the same prefix as another's or part of it."""
    family, bits, number = network(inner)
    outer_family, outer_bits, outer_number = network(outer)
    return family == outer_family and bits >= outer_bits and number >> (bits - outer_bits) == outer_number


def covering(key: str) -> Iterator[tuple[int, int, int]]:
    """`network` of a prefix and of every shorter one that holds it, longest first."""
    family, bits, number = network(key)
    for length in range(bits, -1, -1):
        yield family, length, number >> (bits - length)


def of_pod(
    labels: Mapping[str, str],
    *,
    namespace: str,
    namespace_labels: Mapping[str, str],
    service_account: str,
    cluster: str,
) -> Labels:
    """Labels that make a pod's identity: its own, its namespace's, service account and cluster.

    Keys that are different for each replica (`VOLATILE`) are left out, or each replica would be an
    identity of its own. So are keys that say where a pod belongs (`claimed`): who writes a pod's labels
    does not choose its namespace.
    """
    own = {key: value for key, value in labels.items() if not volatile(key) and not claimed(key)}
    chosen = [label("k8s", key, value) for key, value in own.items()]
    chosen.append(label("k8s", NAMESPACE, namespace))
    chosen += [label("k8s", NAMESPACE_LABELS + key, value) for key, value in namespace_labels.items()]
    chosen.append(label("k8s", SERVICE_ACCOUNT, service_account or "default"))
    chosen.append(label("k8s", CLUSTER, cluster))
    return canonical(chosen)


# Label keys that no policy should name: they differ per replica or revision.
VOLATILE = frozenset(
    {
        "pod-template-hash",
        "pod-template-generation",
        "controller-revision-hash",
        "controller-uid",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "job-name",
        "job-completion-index",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
    }
)


def volatile(key: str) -> bool:
    return key in VOLATILE


def claimed(key: str) -> bool:
    """Whether only podwire itself gives labels with this key: namespace, service account, cluster."""
    return key == NAMESPACE or key.startswith(OURS)


def pod_labels(labels: Labels) -> dict[str, str]:
    """The ``k8s:`` labels of a set, as Kubernetes has them."""
    return {key: value for (source, key), value in values(labels).items() if source == "k8s"}


def namespace_of(labels: Labels) -> str:
    """The namespace of a pod's labels; empty for what is no pod."""
    return values(labels).get(("k8s", NAMESPACE), "")
