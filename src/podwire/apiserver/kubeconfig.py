"""A kubeconfig with everything in it. Pure."""

from __future__ import annotations

import base64

import yaml

from podwire.apiserver.tls import Credentials


def kubeconfig(cluster: str, url: str, user: str, authority: bytes, credentials: Credentials) -> bytes:
    """YAML: one cluster, one user, one context, which is current."""
    context = f"{user}@{cluster}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": url, "certificate-authority-data": _text(authority)}}
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _text(credentials.certificate),
                    "client-key-data": _text(credentials.key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    }
    return yaml.safe_dump(config, sort_keys=False).encode()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
