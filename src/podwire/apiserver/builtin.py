"""The kinds every cluster has, declared: one line each, as kubectl knows them."""

from __future__ import annotations

from podwire.apiserver.kinds import Kind, Registry, Subresource
from podwire.apiserver.schemas import of_kind
from podwire.apiserver.strategies import cluster, definitions, network, pods, services, workloads

_STATUS = ("get", "patch", "update")
_SCALE = Subresource("scale", "Scale", _STATUS, "autoscaling", "v1")
_STREAM = ("create", "get")
_CREATE = ("create",)

META_FIELDS = {"metadata.name": "", "metadata.namespace": ""}
_EVENT_FIELDS = {
    **META_FIELDS,
    **{f"involvedObject.{name}": "" for name in ("kind", "namespace", "name", "uid", "apiVersion")},
    **{name: "" for name in ("involvedObject.resourceVersion", "involvedObject.fieldPath", "reason")},
    **{"reportingComponent": "", "source": "", "type": ""},
}
_POD_FIELDS = {
    **META_FIELDS,
    **{"spec.nodeName": "", "spec.restartPolicy": "", "spec.schedulerName": "", "status.phase": ""},
    **{
        "spec.serviceAccountName": "",
        "status.podIP": "",
        "status.nominatedNodeName": "",
        "spec.hostNetwork": "false",
    },
}


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, _STATUS)


def _core(plural: str, kind: str, *, short: str = "", namespaced: bool = True, **more: object) -> Kind:
    return _kind("", "v1", plural, kind, short=short, namespaced=namespaced, **more)


def _kind(
    group: str,
    version: str,
    plural: str,
    kind: str,
    *,
    short: str = "",
    namespaced: bool = True,
    **more: object,
) -> Kind:
    schema = {"$ref": f"#/components/schemas/{of_kind(group, kind)}"}
    settings: dict[str, object] = {"fields": META_FIELDS, "schema": schema, **more}
    return Kind(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        singular=kind.lower(),
        short=tuple(short.split()),
        namespaced=namespaced,
        **settings,  # type: ignore[arg-type]
    )


def registry() -> Registry:
    """A fresh registry of the built-in kinds; Cilium's come as CustomResourceDefinitions."""
    return Registry(
        [
            _core("bindings", "Binding", verbs=_CREATE, internal=True),
            _core("configmaps", "ConfigMap", short="cm", strategy=cluster.ConfigMaps()),
            _core("endpoints", "Endpoints", short="ep", strategy=network.EndpointsStrategy()),
            _core("events", "Event", short="ev", fields=_EVENT_FIELDS),
            _core(
                "namespaces",
                "Namespace",
                short="ns",
                namespaced=False,
                strategy=cluster.Namespaces(),
                fields={**META_FIELDS, "status.phase": ""},
                subresources=(_status("Namespace"), Subresource("finalize", "Namespace", ("update",))),
            ),
            _core(
                "nodes",
                "Node",
                short="no",
                namespaced=False,
                strategy=cluster.Nodes(),
                fields={**META_FIELDS, "spec.unschedulable": "false"},
                subresources=(_status("Node"),),
            ),
            _core(
                "pods",
                "Pod",
                short="po",
                categories=("all",),
                fields=_POD_FIELDS,
                strategy=pods.Pods(),
                subresources=(
                    _status("Pod"),
                    Subresource("log", "Pod", ("get",)),
                    Subresource("exec", "PodExecOptions", _STREAM),
                    Subresource("attach", "PodAttachOptions", _STREAM),
                    Subresource("portforward", "PodPortForwardOptions", _STREAM),
                    Subresource("binding", "Binding", _CREATE),
                    Subresource("eviction", "Eviction", _CREATE, "policy", "v1"),
                ),
            ),
            _core("secrets", "Secret", strategy=cluster.Secrets(), fields={**META_FIELDS, "type": ""}),
            _core(
                "serviceaccounts",
                "ServiceAccount",
                short="sa",
                subresources=(Subresource("token", "TokenRequest", _CREATE, "authentication.k8s.io", "v1"),),
            ),
            _core(
                "services",
                "Service",
                short="svc",
                categories=("all",),
                strategy=services.Services(),
                fields={**META_FIELDS, "spec.clusterIP": "", "spec.type": ""},
                subresources=(_status("Service"),),
            ),
            _kind(
                "apiextensions.k8s.io",
                "v1",
                "customresourcedefinitions",
                "CustomResourceDefinition",
                short="crd crds",
                namespaced=False,
                categories=("api-extensions",),
                strategy=definitions.Definitions(),
                subresources=(_status("CustomResourceDefinition"),),
            ),
            _kind(
                "apps",
                "v1",
                "controllerrevisions",
                "ControllerRevision",
            ),
            _kind(
                "apps",
                "v1",
                "daemonsets",
                "DaemonSet",
                short="ds",
                categories=("all",),
                strategy=workloads.DaemonSets(),
                subresources=(_status("DaemonSet"),),
            ),
            _kind(
                "apps",
                "v1",
                "deployments",
                "Deployment",
                short="deploy",
                categories=("all",),
                strategy=workloads.Deployments(),
                subresources=(_status("Deployment"), _SCALE),
            ),
            _kind(
                "apps",
                "v1",
                "replicasets",
                "ReplicaSet",
                short="rs",
                categories=("all",),
                strategy=workloads.ReplicaSets(),
                fields={**META_FIELDS, "status.replicas": "0"},
                subresources=(_status("ReplicaSet"), _SCALE),
            ),
            _kind(
                "events.k8s.io", "v1", "events", "Event", short="ev", fields=_EVENT_FIELDS, storage="events"
            ),
            _kind(
                "authentication.k8s.io",
                "v1",
                "selfsubjectreviews",
                "SelfSubjectReview",
                verbs=_CREATE,
                namespaced=False,
                internal=True,
            ),
            _kind(
                "authentication.k8s.io",
                "v1",
                "tokenreviews",
                "TokenReview",
                verbs=_CREATE,
                namespaced=False,
                internal=True,
            ),
            _kind(
                "authorization.k8s.io",
                "v1",
                "selfsubjectaccessreviews",
                "SelfSubjectAccessReview",
                verbs=_CREATE,
                namespaced=False,
                internal=True,
            ),
            _kind(
                "authorization.k8s.io",
                "v1",
                "subjectaccessreviews",
                "SubjectAccessReview",
                verbs=_CREATE,
                namespaced=False,
                internal=True,
            ),
            _kind("coordination.k8s.io", "v1", "leases", "Lease"),
            _kind(
                "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", strategy=network.EndpointSlices()
            ),
            _kind(
                "networking.k8s.io",
                "v1",
                "networkpolicies",
                "NetworkPolicy",
                short="netpol",
                strategy=network.NetworkPolicies(),
            ),
        ]
    )
