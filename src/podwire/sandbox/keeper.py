"""The keeper: the parent of a sandbox's control process and agents; starts them anew when they die.

One small process without threads or an event loop. It imports what agents need once and forks
them, so that an agent's start costs no imports; each enters its node's network namespace and
cgroup before it runs. The API server's listening sockets belong to the keeper, so a control
process that is started anew finds its port, and connections made meanwhile wait for it.

A keeper that is killed is succeeded by another (`succession`), which keeps what it finds running. One
that is asked to restart something, and whose code is older than what is there now, becomes a new one
first.

It answers JSON lines on `Places.keeper_socket`: {"do": "status"} and {"do": "restart", "what":
"agent n1" | "control"}.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from podwire.base.aio import boundary
from podwire.base.config import AgentConfig
from podwire.base.errors import Conflict, PodwireError
from podwire.base.telemetry import configure_logging
from podwire.net import namespaces
from podwire.sandbox import children, images
from podwire.sandbox.children import CONTROL, GUARD, KEEPER, Child
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Outside, Plan
from podwire.sandbox.runner.process import Process, process

STEADY = 10.0  # s after which a process that dies is started again at once
LOOK = 0.005  # s between looks for the kubeconfigs that agents wait for
REFUSED = 1.0  # s until the next try where a process could not be started
_PR_SET_NAME = 15


class Work(msgspec.Struct, frozen=True):
    """What the processes run; each but `look` never returns. `common` and `warm` import what children need:
    the one what all of them do, before the first is forked, the other what agents do besides."""

    common: Callable[[], None]
    control: Callable[[Plan, Places, list[socket.socket], int | None], None]
    warm: Callable[[], None]
    agent: Callable[[Path], None]
    relay: Callable[[list[tuple[str, str]], Places, list[socket.socket]], None]
    guard: Callable[[Places, Process, list[socket.socket]], None]
    look: Callable[[Places], None]  # returns, and looks after the keeper beside what else the process does
    renew: Callable[[Places, list[socket.socket], str], None]
    outdated: Callable[[], bool]


class Keeper:
    """Keeps `plan`'s processes.

    `listen` gives the API's listening sockets; `sockets` are those an earlier keeper left. `progress` is
    where who waits for `up` reads JSON lines. `renewed` is what to restart once all runs: what an earlier
    keeper with older code was asked for.
    """

    def __init__(
        self,
        plan: Plan,
        places: Places,
        listen: Callable[[], list[socket.socket]],
        progress: int | None,
        work: Work,
        sockets: list[socket.socket] | None = None,
        renewed: str = "",
    ) -> None:
        self.plan, self.places, self.listen, self.progress, self.work = plan, places, listen, progress, work
        self.sockets = sockets or []
        self.renewed = renewed
        self.me = process(os.getpid())
        self.children: dict[str, Child] = {}
        self.ending = False
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.selector = selectors.DefaultSelector()
        self.held = -1

    def run(self) -> None:
        """Until SIGTERM. Conflict if this sandbox has a keeper."""
        os.umask(0o022)  # whatever the shell's is: users in pods read what is written for them
        self.held = children.claim(self.places, KEEPER)
        self._listen()
        if self.progress is None:
            # A successor, before it imports: until there is a guard, a second kill could be the last.
            self._add(GUARD, self._guard)
        self.work.common()
        if children.claimed(self.places, CONTROL) is None:
            self._open_api()
        if GUARD not in self.children:
            self._add(GUARD, self._guard)
        wake = self._catch_signals()
        self._add(CONTROL, self._control)
        self.work.warm()
        later = self._later()
        while not self.ending:
            if later and self._kubeconfigs():
                for name, start in later.items():
                    self._add(name, start)
                later = {}
                if self.renewed:
                    self._restart(self.renewed)
            for key, _ in self.selector.select(LOOK if later else self._until_due()):
                if key.fileobj == wake:
                    self.ending = signal.SIGTERM in os.read(wake, 512)
                elif key.fileobj is self.server:
                    with boundary("answering a request"):
                        self._answer()
                else:
                    self._ended(key.data)
            self._start_due()

    def _later(self) -> dict[str, Callable[[], None]]:
        """What is started once agents can reach the API."""
        found: dict[str, Callable[[], None]] = {}
        for node in self.plan.nodes:
            found[f"agent {node.name}"] = lambda name=node.name: self._agent(name)  # type: ignore[misc]
        found["relay"] = self._relay
        for outside in self.plan.worlds:
            if outside.world.serve:
                found[f"world {outside.world.name}"] = lambda one=outside: self._world(one)  # type: ignore[misc]
        return found

    def _catch_signals(self) -> int:
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self.selector.register(wake, selectors.EVENT_READ)
        self.selector.register(self.server, selectors.EVENT_READ)
        return wake

    def _open_api(self) -> None:
        """A control process needs the API's sockets; one that runs has them."""
        if not self.sockets:
            self.sockets = self.listen()

    # -- children

    def _add(self, name: str, start: Callable[[], None]) -> None:
        self.children[name] = Child(name, start)
        self._start(self.children[name])

    def _start(self, child: Child) -> None:
        """Keep the one that runs, or fork one."""
        child.since, child.due = time.monotonic(), time.monotonic() + REFUSED
        with boundary(f"starting {child.name}"):
            known = children.claimed(self.places, child.name)
            if known is not None and child.open(known.pid):
                print(f"{child.name} runs already", file=sys.stderr, flush=True)
            else:
                if child.name == CONTROL:
                    self._open_api()
                pid = os.fork()
                if pid == 0:
                    self._become(child)
                child.starts += 1
                child.open(pid)
            child.due = 0.0
            self.selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _become(self, child: Child) -> None:
        """In the fork: run, and never come back into the keeper."""
        code = 1
        try:
            os.close(self.held)  # or the keeper's claim would live as long as this child
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.server.close()
            self.selector.close()
            name_process(f"podwire-{child.name.rpartition(' ')[2]}")  # podwire-control, podwire-n1
            log_to(log_path(self.places, child.name))
            self.held = children.claim(self.places, child.name)
            child.start()
            code = 0
        except PodwireError as error:
            print(f"Error: {error}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
            code = error.exit_code
        except KeyboardInterrupt:
            code = 130
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001  the fork's outermost frame: say why, then end
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _control(self) -> None:
        self.work.control(self.plan, self.places, self.sockets, self.progress)

    def _guard(self) -> None:
        """It holds the API's sockets for the next keeper, but waits for nobody's `up`."""
        if self.progress is not None:
            os.close(self.progress)
        self.work.guard(self.places, self.me, self.sockets)

    def _agent(self, node: str) -> None:
        for one in self.sockets:
            one.close()
        if self.progress is not None:
            os.close(self.progress)
        self.work.look(self.places)  # before the namespaces: what it starts is of the machine, not the node
        join_cgroup(self.places.agent_cgroup(node))
        namespaces.enter(str(self.places.netns(node)))
        self.work.agent(self.places.node(node) / "agent.json")

    def _relay(self) -> None:
        """One Hubble server for all nodes."""
        nodes = [
            (f"{self.plan.name}/{node.name}", f"unix://{self.places.node(node.name)}/hubble.sock")
            for node in self.plan.nodes
        ]
        self.work.relay(nodes, self.places, self.sockets)

    def _world(self, outside: Outside) -> None:
        """A host outside answers on its ports."""
        name = outside.world.name
        join_cgroup(self.places.node_cgroup(name))
        namespaces.enter(str(self.places.netns(name)))
        os.set_inheritable(self.held, True)
        words = images.web(list(outside.world.serve))
        os.execve(words[0], words, {"HOSTNAME": name, "PATH": os.environ.get("PATH", "")})

    def _ended(self, child: Child) -> None:
        self.selector.unregister(child.pidfd)
        how = child.ended()
        now = time.monotonic()
        child.quick_deaths = 0 if now - child.since > STEADY else child.quick_deaths + 1
        wait = 0.0 if child.quick_deaths <= 1 else min(10.0, 0.1 * 2.0**child.quick_deaths)
        child.due = now + wait
        print(f"{child.name} ended {how}; starting it again in {wait:.1f} s", file=sys.stderr, flush=True)
        self._tell(
            {"died": child.name, "how": how, "times": child.quick_deaths, "log": self._last_words(child)}
        )

    def _last_words(self, child: Child) -> str:
        """The last line of its log: what a person is told when the sandbox cannot come up."""
        try:
            text = log_path(self.places, child.name).read_text(errors="replace")
        except OSError:
            return ""
        return next((line for line in reversed(text.splitlines()) if line.strip()), "")

    def _until_due(self) -> float | None:
        due = [child.due for child in self.children.values() if child.due]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_due(self) -> None:
        for child in self.children.values():
            if child.due and child.due <= time.monotonic():
                self._start(child)

    # -- requests

    def _listen(self) -> None:
        self.places.keeper_socket.unlink(missing_ok=True)
        self.server.bind(str(self.places.keeper_socket))
        os.chmod(self.places.keeper_socket, 0o600)
        self.server.listen(16)

    def _answer(self) -> None:
        connection, _ = self.server.accept()
        with connection:
            connection.settimeout(2)
            try:
                request = json.loads(connection.makefile("rb").readline(4096) or b"{}")
            except ValueError:
                request = None
            if not isinstance(request, dict):
                raise Conflict("a request is a JSON object")
            what = str(request.get("what"))
            renew = request.get("do") == "restart" and what in self.children and self.work.outdated()
            # A keeper that was renewed for this, and still finds its code old, sees a clock that was set.
            renew = renew and not self.renewed
            answer = _shown(self.children[what]) if renew else self._do(request)
            with suppress(OSError):  # who asked may have gone; what was asked for is done all the same
                connection.sendall(json.dumps(answer).encode() + b"\n")
        if renew:
            self.work.renew(self.places, self.sockets, what)

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "status":
                return {"children": [_shown(child) for child in self.children.values()]}
            case "restart" if request.get("what") in self.children:
                return _shown(self._restart(str(request["what"])))
            case "restart":
                return {"error": f"there is no {request.get('what')} here"}
        return {"error": "unknown request"}

    def _restart(self, name: str) -> Child:
        child = self.children[name]
        child.quick_deaths, child.since = 0, 0.0
        if child.pid:
            child.signal()
        else:
            child.due = time.monotonic()
        return child

    def _kubeconfigs(self) -> bool:
        """Agents need a kubeconfig, which the control process writes when its API listens."""
        return all((self.places.node(node.name) / "kubeconfig").exists() for node in self.plan.nodes)

    def _tell(self, message: dict[str, Any]) -> None:
        if self.progress is None:
            return
        try:
            os.write(self.progress, json.dumps(message).encode() + b"\n")
        except OSError:
            return  # nobody waits any more, or does not read


def _shown(child: Child) -> dict[str, Any]:
    return {"name": child.name, "pid": child.pid, "starts": child.starts}


def agent_config(plan: Plan, places: Places, node: str) -> AgentConfig:
    """The configuration of `node`'s agent."""
    return AgentConfig(
        node_name=node,
        cluster_name=plan.name,
        kubeconfig=str(places.node(node) / "kubeconfig"),
        run_dir=str(places.node(node)),
        bpf_dir=str(places.node_bpf(node)),
        cgroup=str(places.node_cgroup(node)),
        routing_mode=plan.lab.routing,
        enable_ipv4=plan.lab.ipv4,
        enable_ipv6=plan.lab.ipv6,
        service_cidrs=plan.service_cidrs,
        mtu=plan.lab.mtu,
    )


def join_cgroup(directory: Path) -> None:
    (directory / "cgroup.procs").write_text("0")


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def log_path(places: Places, process: str) -> Path:
    """``control`` → ``logs/control.log``, ``agent n1`` → ``logs/agent-n1.log``."""
    return places.logs / f"{process.replace(' ', '-')}.log"


def log_to(path: Path) -> None:
    """Standard output and error go to the end of `path` from now on."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    configure_logging(path.stem)
