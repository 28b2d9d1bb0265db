"""The cluster's certificates: one CA, a server certificate, client certificates on demand.

A client's certificate is asked for, and one that this CA did not sign ends the handshake; without one
the client may still have a token. kube-apiserver answers a wrong one with 401 instead. Python's `ssl`
cannot let a certificate through unjudged, and reaching for libssl behind its back would depend on how
CPython lays out its objects.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podwire.base.errors import StorageError
from podwire.base.files import replace_whole

_LIFE = timedelta(days=3650)
_SKEW = timedelta(minutes=5)


class Credentials(msgspec.Struct, frozen=True):
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class Subject(msgspec.Struct, frozen=True):
    """Who a client is: CN and the Os."""

    name: str
    groups: tuple[str, ...]


class Authority:
    """The CA in `directory`: made when it is not there, files 0600."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key_file = directory / "ca.key"
        self.certificate_file = directory / "ca.crt"
        try:
            if self._key_file.exists() and self.certificate_file.exists():
                self._load()
            else:
                self._make()
        except (OSError, ValueError) as error:
            raise StorageError(
                f"cannot keep the cluster's certificates in {directory}: {error}",
                hint="check the directory's owner and rights; removing ca.crt and ca.key makes a new CA",
            ) from error

    @property
    def pem(self) -> bytes:
        return self.certificate_file.read_bytes()

    def client(self, name: str, groups: tuple[str, ...] = ()) -> Credentials:
        """A certificate for a client: `name` is its CN, `groups` its Os."""
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._issue(subject, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def server(self, names: tuple[str, ...], addresses: tuple[str, ...]) -> Credentials:
        """A certificate for the API server under these names and addresses."""
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "podwire-apiserver")])
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, alternatives)

    def subject(self, der: bytes) -> Subject | None:
        """Who `der` (a client's certificate) says it is, if this CA signed it and it is valid now.

        The handshake asked the same once; a connection may live longer than the certificate.
        """
        try:
            found = x509.load_der_x509_certificate(der)
            self._public.verify(
                found.signature,
                found.tbs_certificate_bytes,
                ec.ECDSA(found.signature_hash_algorithm or hashes.SHA256()),
            )
            usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
            return None
        moment = datetime.now(UTC)
        if found.issuer != self._certificate.subject or ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
            return None
        if not found.not_valid_before_utc <= moment <= found.not_valid_after_utc:
            return None
        names = [str(one.value) for one in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(one.value) for one in found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        return Subject(names[0], tuple(groups)) if names else None

    def context(self, server: Credentials) -> ssl.SSLContext:
        """What a listening socket needs: the server's certificate, and judging the client's if it has one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        certificate, key = self.directory / "server.crt", self.directory / "server.key"
        write_private(certificate, server.certificate)
        write_private(key, server.key)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(self.certificate_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _load(self) -> None:
        key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("ca.key is not an elliptic curve key")
        self._key = key
        self._public = key.public_key()
        self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())

    def _make(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._public = self._key.public_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"podwire-ca-{os.urandom(4).hex()}")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        moment = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - _SKEW)
            .not_valid_after(moment + _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._public), critical=False)
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        write_private(self._key_file, _key_pem(self._key))
        write_private(self.certificate_file, self._certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(
        self, subject: x509.Name, usage: x509.ObjectIdentifier, alternatives: list[x509.GeneralName]
    ) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        moment = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - _SKEW)
            .not_valid_after(moment + _LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._public), critical=False)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Credentials(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def write_private(path: Path, content: bytes) -> None:
    """Write whole or not at all, readable by the owner alone."""
    replace_whole(path, content, mode=0o600)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
