"""The unmodified hubble CLI, and a server with synthetic flows for it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from podwire.cli import main as podwire

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def hubble() -> Path:
    """Path of the unmodified CLI."""
    return built("hubble")


@pytest.fixture(scope="session")
def hubble_relay() -> Path:
    """Path of Cilium's relay."""
    return built("hubble-relay")


def built(program: str) -> Path:
    """Built from its Go module the first time, which takes minutes; without Go there is none."""
    made = subprocess.run([ROOT / "tools" / "build-hubble", program], capture_output=True, text=True)
    if made.returncode == 3:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HUBBLE_SERVER of a node with the flows of `podwire.testing.flows.sample`."""
    directory = tmp_path_factory.mktemp("hubble")
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("serve.py"), directory], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield f"unix://{directory}/hubble.sock"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@pytest.fixture
def run(hubble: Path, server: str, monkeypatch: pytest.MonkeyPatch):
    """Run hubble, or podwire in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("HUBBLE_SERVER", server)

    def run(program: str, *arguments: str) -> tuple[int, str, str]:
        if program == "hubble":
            done = subprocess.run([hubble, *arguments], capture_output=True, text=True, timeout=30)
            return done.returncode, done.stdout, done.stderr
        out, error = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(error):
            try:
                podwire(["hubble", *arguments])
            except SystemExit as end:
                return int(end.code or 0), out.getvalue(), error.getvalue()
        raise AssertionError("podwire did not end")

    return run
