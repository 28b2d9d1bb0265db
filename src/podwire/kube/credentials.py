"""How to reach an API server and who to be there: kubeconfig files and the in-cluster mount."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from podwire.base.errors import ConfigError, PodwireError
from podwire.kube.documents import parse_yaml

_MOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Access(msgspec.Struct, frozen=True):
    """A server and credentials. Certificates are PEM."""

    server: str
    authority: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    token_file: str = ""
    insecure: bool = False
    server_name: str = ""
    namespace: str = "default"

    def tls(self) -> ssl.SSLContext | bool:
        """The TLS context for the connection; True is Python's default for plain names."""
        if self.server.startswith("http://"):
            return False
        try:
            context = ssl.create_default_context(cadata=self.authority.decode() or None)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate:
                _load_pair(context, self.certificate, self.key)
        except (ssl.SSLError, ValueError, OSError) as error:
            raise ConfigError(f"the credentials for {self.server} are not usable: {error}") from error
        return context


def from_kubeconfig(path: Path | str, context: str | None = None) -> Access:
    """What `context` (default: the current one) of a kubeconfig file says."""
    file = Path(path)
    try:
        documents = list(parse_yaml(file.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the kubeconfig {file}: {error}") from error
    except PodwireError as error:
        raise ConfigError(f"the kubeconfig {file} is not valid: {error}") from error
    config = documents[0].body if len(documents) == 1 else None
    if not isinstance(config, dict):
        raise ConfigError(f"the kubeconfig {file} is not one YAML document")
    chosen = context or config.get("current-context") or ""
    place = _named(config, "contexts", "context", chosen, file)
    cluster = _named(config, "clusters", "cluster", str(place.get("cluster", "")), file)
    user = _named(config, "users", "user", str(place["user"]), file) if place.get("user") else {}
    if not isinstance(cluster.get("server"), str):
        raise ConfigError(f"the kubeconfig {file} names no server for context {chosen}")
    return Access(
        server=cluster["server"].rstrip("/"),
        authority=_bytes(cluster, "certificate-authority", file),
        certificate=_bytes(user, "client-certificate", file),
        key=_bytes(user, "client-key", file),
        token=str(user.get("token") or ""),
        token_file=str(user.get("tokenFile") or ""),
        insecure=cluster.get("insecure-skip-tls-verify") is True,
        server_name=str(cluster.get("tls-server-name") or ""),
        namespace=str(place.get("namespace") or "default"),
    )


def in_cluster() -> Access:
    """What a pod's service account mount and environment say."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigError(
            "this is no pod of a cluster: KUBERNETES_SERVICE_HOST is not set", hint="give a kubeconfig file"
        )
    try:
        return Access(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            authority=(_MOUNT / "ca.crt").read_bytes(),
            token_file=str(_MOUNT / "token"),
            namespace=(_MOUNT / "namespace").read_text().strip(),
        )
    except OSError as error:
        raise ConfigError(f"cannot read the service account's mount {_MOUNT}: {error}") from error


def _named(config: dict[str, Any], section: str, inner: str, name: str, file: Path) -> dict[str, Any]:
    for one in config.get(section) or []:
        if isinstance(one, dict) and one.get("name") == name and isinstance(one.get(inner), dict):
            found: dict[str, Any] = one[inner]
            return found
    raise ConfigError(f"the kubeconfig {file} has no {inner} named “{name}”")


def _bytes(section: dict[str, Any], name: str, file: Path) -> bytes:
    """Content of ``<name>-data`` or of the file ``<name>`` names, relative to the kubeconfig."""
    try:
        if section.get(name + "-data"):
            return base64.b64decode(section[name + "-data"], validate=True)
        return (file.parent / section[name]).read_bytes() if section.get(name) else b""
    except (OSError, ValueError, TypeError, binascii.Error) as error:
        raise ConfigError(f"cannot read {name} of the kubeconfig {file}: {error}") from error


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # ssl loads a certificate and its key from a file only; this one lives for the call, 0600.
    with tempfile.NamedTemporaryFile(prefix="podwire-", suffix=".pem") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)
