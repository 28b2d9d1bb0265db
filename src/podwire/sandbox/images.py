"""Stand-ins: what an image without a `command` runs here, where there are no images.

A sandbox pulls nothing. The last part of an image's name, without registry and tag, is looked up
in `TABLE`; an image that is not in it can be used with a `command`, which runs as it is from the
host's file system.

================  =========================================================================
stand-in          what it does
================  =========================================================================
``web``           answers HTTP with who it is and what it was asked (method, path, headers,
                  client), on the container's ports or 80 and 8080, TCP and UDP (echo)
``shell``         does nothing until it is told to; its `args` are the command, as in images
                  without an entrypoint
``pause``         does nothing; takes no `args`
a program         is run where it is installed; otherwise the web stand-in takes its place
================  =========================================================================
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import msgspec

WEB = "web"
SHELL = "shell"
PAUSE = "pause"


class StandIn(msgspec.Struct, frozen=True):
    """What stands in for an image: a kind, and a real program that is preferred where installed."""

    kind: str
    program: tuple[str, ...] = ()


_WEB = StandIn(WEB)
_SHELL = StandIn(SHELL)

TABLE: dict[str, StandIn] = {
    # servers
    "nginx": StandIn(WEB, ("nginx", "-g", "daemon off;")),
    "httpd": _WEB,
    "apache": _WEB,
    "caddy": _WEB,
    "traefik": _WEB,
    "httpbin": _WEB,
    "go-httpbin": _WEB,
    "http-echo": _WEB,
    "echo-server": _WEB,
    "echoserver": _WEB,
    "echo": _WEB,
    "whoami": _WEB,
    "hello-app": _WEB,
    "hello-world": _WEB,
    "kuard-amd64": _WEB,
    "podinfo": _WEB,
    "agnhost": _WEB,
    "json-mock": _WEB,
    "starwars": _WEB,
    "frontend": _WEB,
    "backend": _WEB,
    "gb-frontend": _WEB,
    "web": _WEB,
    "web-server": _WEB,
    "postgres": StandIn(WEB),
    "mysql": StandIn(WEB),
    "redis": StandIn(WEB, ("redis-server",)),
    "prometheus": StandIn(WEB),
    "coredns": _WEB,
    # clients
    "busybox": _SHELL,
    "alpine": _SHELL,
    "debian": _SHELL,
    "ubuntu": _SHELL,
    "fedora": _SHELL,
    "centos": _SHELL,
    "bash": _SHELL,
    "python": _SHELL,
    "curl": _SHELL,
    "alpine-curl": _SHELL,
    "netshoot": _SHELL,
    "network-multitool": _SHELL,
    "dnsutils": _SHELL,
    "jessie-dnsutils": _SHELL,
    "tiefighter": _SHELL,
    "client": _SHELL,
    "toolbox": _SHELL,
    # nothing
    "pause": StandIn(PAUSE),
    "cluster-dns": StandIn(PAUSE),  # answered by the control process inside the pod's network
    "sleep": StandIn(PAUSE),
}


def base_name(image: str) -> str:
    """``registry.k8s.io/pause:3.9@sha256:…`` → ``pause``."""
    last = image.rpartition("/")[2]
    return last.partition("@")[0].partition(":")[0].lower()


def lookup(image: str) -> StandIn | None:
    """The stand-in of an image; None for one that is not in the table."""
    return TABLE.get(base_name(image))


def command(image: str, args: list[str], ports: list[int]) -> list[str] | None:
    """What to run for `image`; None if it is not known, ValueError if it takes no such `args`."""
    found = lookup(image)
    if found is None:
        return None
    if found.kind == SHELL:
        return list(args) if args else sleeping()
    if found.program and (path := shutil.which(found.program[0])):
        return [path, *(args or found.program[1:])]
    if args:
        raise ValueError(
            f"the stand-in for image {image} takes no args; give the container a command instead"
        )
    return sleeping() if found.kind == PAUSE else web(ports)


def web(ports: list[int]) -> list[str]:
    """The web stand-in on `ports`; 80 and 8080 if there are none."""
    script = str(Path(__file__).with_name("webserver.py"))
    return [interpreter(), "-I", "-S", script, *(str(port) for port in ports or (80, 8080))]


def interpreter() -> str:
    """Python itself, not the virtual environment's link to it: it starts faster."""
    return os.path.realpath(sys.executable)


def sleeping() -> list[str]:
    return [shutil.which("sleep") or "/bin/sleep", "infinity"]
