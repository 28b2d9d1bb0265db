"""A Hubble server's address and its TLS, checked before gRPC sees them: gRPC tells of a wrong one only in
its own log, and of why it cannot connect not at all.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import msgspec

from podwire.base.errors import UsageError

FORMS = "host:port, tls://host:port or unix:///path"
MOST = 4096  # characters of an address
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")


class Connection(msgspec.Struct, frozen=True):
    """How to reach the server. Times in seconds; `timeout` is for dialing, `request` for one answer."""

    server: str
    tls: bool = False
    ca_files: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    timeout: float = 5.0
    request: float = 12.0


class Target(msgspec.Struct, frozen=True):
    """Where to connect: a `path`, or a `host` and a `port`. `name` is gRPC's for it."""

    name: str
    secure: bool
    path: str = ""
    host: str = ""
    port: int = 0


def target(connection: Connection) -> Target:
    """UsageError for what is no address of a server."""
    server = connection.server
    secure = connection.tls or bool(connection.certificate) or server.startswith("tls://")
    if server.startswith("unix:"):
        path = server.removeprefix("unix:")
        path = path.removeprefix("//")
        if path and path.isprintable() and len(server) <= MOST:
            return Target(f"unix:{path}", secure, path=path)
        raise _refused(server)
    name = server.removeprefix("tls://")
    found = _HOST_PORT.fullmatch(name)
    if found is None or not 0 < int(found["port"]) < 65536 or len(server) > MOST:
        raise _refused(server)
    return Target(name, secure, host=found["host"].strip("[]"), port=int(found["port"]))


def _refused(server: str) -> UsageError:
    shown = server if len(server) <= 60 else f"{server[:60]}…"
    return UsageError(f"--server: {shown!r} is no address of a server", hint=f"{FORMS}; a port is 1 to 65535")


class Identity(msgspec.Struct, frozen=True):
    """What TLS needs, as PEM; None = the system's authorities, and no certificate of one's own."""

    roots: bytes | None
    certificate: bytes | None
    key: bytes | None


def identity(connection: Connection) -> Identity:
    """UsageError for a file that is missing, or that does not hold what its option says."""
    if bool(connection.certificate) != bool(connection.key):
        raise UsageError("--tls-client-cert-file and --tls-client-key-file belong together")
    roots = [_read("--tls-ca-cert-files", path) for path in connection.ca_files]
    shown, key = connection.certificate, connection.key
    made = Identity(
        roots=b"\n".join(roots) if roots else None,
        certificate=_read("--tls-client-cert-file", shown) if shown else None,
        key=_read("--tls-client-key-file", key) if key else None,
    )
    for path, pem in zip(connection.ca_files, roots, strict=True):
        _check(path, pem)
    if shown:
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(shown, key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(
                f"--tls-client-cert-file {shown} and --tls-client-key-file {key}"
                " are no certificate with its key",
                hint="both as PEM, the key not encrypted",
            ) from error
    return made


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise UsageError(f"{option}: cannot read {path[:200]}: {why}") from error


def _check(path: str, pem: bytes) -> None:
    """UsageError if the file holds no certificate."""
    import ssl  # 10 ms that a connection without TLS does not need

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"--tls-ca-cert-files: {path} holds no certificate", hint="a file with certificates as PEM"
        ) from error


def why_not(where: Target, given: Identity | None, server_name: str, timeout: float) -> str:
    """Why gRPC does not connect there, as a part of a sentence: tried once by hand, for gRPC does not say."""
    try:
        family = socket.AF_UNIX if where.path else socket.AF_UNSPEC
        if family == socket.AF_UNIX:
            connected = socket.socket(family)
            connected.settimeout(timeout)
            connected.connect(where.path)
        else:
            connected = socket.create_connection((where.host, where.port), timeout)
    except TimeoutError:
        return "nothing there takes connections in time"
    except (OSError, UnicodeError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    with connected:
        if given is None:
            return "something is there, but does not speak gRPC without TLS in time"
        return _handshake(connected, given, server_name or where.host)


def _handshake(connected: socket.socket, given: Identity, name: str) -> str:
    import ssl

    context = ssl.create_default_context(cadata=given.roots.decode("ascii") if given.roots else None)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connected, server_hostname=name or None):
            return "it does not speak gRPC in time"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message.lower()}"
    except (OSError, ValueError) as error:
        return f"TLS with it fails: {str(getattr(error, 'reason', None) or error).lower()}"
