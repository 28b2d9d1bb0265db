"""The unmodified hubble CLI over TCP with TLS: with a certificate of the CA it is answered, else not."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.hubble.test_serve import certificate

pytestmark = pytest.mark.compat
SERVE = Path(__file__).with_name("serve.py")


def test_flows_over_tls_for_who_has_a_certificate(hubble: Path, tmp_path: Path) -> None:
    authority = certificate(tmp_path, "ca")
    for name in ("server", "client"):
        certificate(tmp_path, name, authority)
    certificate(tmp_path, "stranger")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [hubble, "observe", "--last", "5", "--server", address, "--timeout", "3s", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def credentials(name: str) -> list[str]:
        return [
            "--tls",
            f"--tls-ca-cert-files={tmp_path}/ca.crt",
            "--tls-server-name=localhost",
            f"--tls-client-cert-file={tmp_path}/{name}.crt",
            f"--tls-client-key-file={tmp_path}/{name}.key",
        ]

    command = [sys.executable, SERVE, tmp_path, "n1", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n"
            known = ask(*credentials("client"))
            assert (known.returncode, known.stdout.count("\n")) == (0, 5), known.stderr
            assert ask(*credentials("stranger")).returncode != 0
            assert ask().returncode != 0
        finally:
            server.terminate()
