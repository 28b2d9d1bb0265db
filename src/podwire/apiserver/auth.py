"""Who asks: a client certificate of the cluster's CA, or a service account's token.

There is no authorization in this embedded API: who is known may do everything. Who is not known
gets 401, except on the paths that tell only health and version.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from podwire.apiserver.status import StatusError
from podwire.apiserver.tls import Authority, write_private

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version", "/version/"})


class User(msgspec.Struct, frozen=True):
    """An authenticated client, or ``system:anonymous``."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""

    def info(self) -> dict[str, Any]:
        """authentication.k8s.io UserInfo."""
        return {"username": self.name, **({"uid": self.uid} if self.uid else {}), "groups": list(self.groups)}


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


class Authenticator:
    """Judges certificates and tokens. Tokens are JWTs signed (HS256) with a key of this cluster."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        self.authority = authority
        file = directory / "tokens.key"
        if not file.exists():
            write_private(file, base64.b64encode(os.urandom(32)))
        self._key = file.read_bytes()
        self._subjects: dict[bytes, User | None] = {}

    def by_certificate(self, der: bytes) -> User | None:
        digest = hashlib.sha256(der).digest()
        if digest not in self._subjects:
            subject = self.authority.subject(der)
            known = User(subject.name, (*subject.groups, "system:authenticated")) if subject else None
            if len(self._subjects) > 1000:
                self._subjects.clear()
            self._subjects[digest] = known
        return self._subjects[digest]

    def by_token(self, token: str) -> User | None:
        try:
            head, body, signature = token.split(".")
            expected = hmac.new(self._key, f"{head}.{body}".encode(), hashlib.sha256).digest()
            if not hmac.compare_digest(expected, _unpack(signature)):
                return None
            claims = msgspec.json.decode(_unpack(body))
            if claims["exp"] < time.time():
                return None
            _, _, namespace, account = claims["sub"].split(":")
        except (ValueError, KeyError, TypeError, binascii.Error, msgspec.DecodeError):
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(f"system:serviceaccount:{namespace}:{account}", groups, claims.get("uid", ""))

    def token(
        self, namespace: str, account: str, uid: str, seconds: int, audiences: list[str]
    ) -> tuple[str, float]:
        """A token for a service account and when it ends (seconds since the epoch)."""
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc",
            "aud": audiences or ["https://kubernetes.default.svc"],
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "uid": uid,
            "iat": now,
            "exp": now + seconds,
        }
        head = _pack(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
        signed = f"{head}.{_pack(msgspec.json.encode(claims))}"
        return (
            f"{signed}.{_pack(hmac.new(self._key, signed.encode(), hashlib.sha256).digest())}",
            now + seconds,
        )


def _pack(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
