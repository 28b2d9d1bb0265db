"""The command line's door to a Hubble server: why it does not get in is one sentence, and nothing beside it.

Each try is a process of its own: what gRPC's threads and its C core print shows only there.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.loopback.hubble.test_front import Observer

from podwire.apiserver.tls import Authority


async def hubble(*words: str) -> tuple[int, list[str], str]:
    """(exit code, lines on standard error, standard output)."""
    command = [sys.executable, "-m", "podwire.cli", "hubble", "status", *words]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines(), done.stdout


def one_sentence(lines: list[str], why: str) -> None:
    assert len(lines) == 2, lines  # with what to do next
    assert lines[0].startswith("Error: no Hubble server answers at ") and why in lines[0], lines


def test_who_is_not_there_or_says_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            one_sentence(
                (await hubble("--server", f"unix://{tmp_path}/none", "--timeout", "300ms"))[1], "no such file"
            )
            for limit in ("1ms", "300ms"):
                code, lines, _ = await hubble("--server", f"127.0.0.1:{port}", "--timeout", limit)
                assert code
                one_sentence(lines, "does not speak gRPC")
        _, lines, _ = await hubble("--server", f"127.0.0.1:{port}", "--timeout", "300ms")
        one_sentence(lines, "connection refused")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "own", "why"),
    [
        ("localhost", True, ""),
        ("localhost", False, "certificate is not accepted"),
        ("other", True, "not accepted"),
    ],
)
def test_tls(tmp_path: Path, name: str, own: bool, why: str) -> None:
    (tmp_path / "theirs").mkdir()
    stranger = tmp_path / "theirs" / "pem"
    stranger.write_bytes(Authority(tmp_path / "theirs").pem)

    async def main() -> None:
        observer = Observer(tmp_path)
        (tmp_path / "ca").write_bytes(observer.authority.pem)
        ca = tmp_path / "ca" if own else stranger
        async with observer.serving():
            server = ("--server", f"tls://127.0.0.1:{observer.port}", "--tls-ca-cert-files", str(ca))
            code, lines, _ = await hubble(*server, "--tls-server-name", name, "--timeout", "2s")
        if why:
            one_sentence(lines, why)
        else:  # connected: this server has its health and nothing else
            assert code == 1 and len(lines) <= 2 and "no Hubble server" not in lines[0], lines

    asyncio.run(main())


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    authority = Authority(tmp_path / "own")
    given, other = authority.client("anna", ()), authority.client("bert", ())
    files = {
        "ca": authority.pem,
        "garbage": b"\xff\x00 no certificate",
        "crt": given.certificate,
        "key": given.key,
        "other": other.key,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def option(name: str, file: str) -> list[str]:
        return [f"--tls-{name}", str(tmp_path / file)]

    async def main() -> None:
        for words, named in (
            (option("ca-cert-files", "garbage"), "garbage holds no certificate"),
            (option("ca-cert-files", "none"), "none: No such file"),
            (
                [*option("client-cert-file", "crt"), *option("client-key-file", "other")],
                "no certificate with its key",
            ),
            (
                [*option("client-cert-file", "garbage"), *option("client-key-file", "key")],
                "no certificate with its key",
            ),
            (option("client-cert-file", "crt"), "belong together"),
        ):
            code, lines, _ = await hubble("--server", "tls://localhost:1", *words)
            assert code == 2 and len(lines) <= 2 and named in lines[0] and words[0] in lines[0], lines

    asyncio.run(main())
