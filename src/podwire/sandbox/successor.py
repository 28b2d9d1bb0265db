"""A keeper that takes over from another, in an interpreter of its own. `succession` says who starts one."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from urllib.parse import urlsplit

import msgspec

from podwire.base.errors import NotFound, PodwireError
from podwire.sandbox import keeper, processes, succession, underlay
from podwire.sandbox.mounts import cgroup2
from podwire.sandbox.places import Places
from podwire.sandbox.plans import load


def main(arguments: list[str]) -> None:
    """`python -m podwire.sandbox.successor NAME`: keep the sandbox NAME."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--socket", type=int, action="append", default=[])
    parser.add_argument("--restart", default="")
    given = parser.parse_args(arguments)
    places = Places(given.name, cgroup2())
    sockets = [socket.socket(fileno=number) for number in given.socket]
    for one in sockets:
        one.set_inheritable(False)
    try:
        plan = load(places.state)
    except (OSError, msgspec.MsgspecError) as error:
        raise NotFound(f"there is no sandbox “{places.name}”") from error
    keeper.join_cgroup(places.system_cgroup)
    os.chdir("/")
    keeper.name_process("podwire-keeper")
    keeper.log_to(places.logs / "keeper.log")
    keeper.Keeper(
        plan,
        places,
        lambda: underlay.listening(plan, places, urlsplit(succession.server_of(places.kubeconfig)).port or 0),
        None,
        processes.work(),
        sockets,
        given.restart,
    ).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PodwireError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from error
