"""The keeper: the parent of a sandbox's control process and agents; starts them anew when they die.

One small process without threads or an event loop. It imports what agents need once and forks
them, so that an agent's start costs no imports; each enters its node's network namespace and
cgroup before it runs. The API server's listening sockets belong to the keeper, so a control
process that is started anew finds its port, and connections made meanwhile wait for it.

It answers JSON lines on `Places.keeper_socket`: {"do": "status"} and {"do": "restart", "what":
"agent n1" | "control"}.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from podwire.base.config import AgentConfig
from podwire.base.errors import PodwireError
from podwire.base.telemetry import configure_logging
from podwire.net import namespaces
from podwire.sandbox import images
from podwire.sandbox.places import Places
from podwire.sandbox.plan import Outside, Plan

STEADY = 10.0  # s after which a process that dies is started again at once
_PR_SET_NAME = 15


class Work(msgspec.Struct, frozen=True):
    """What the processes run; each never returns. `common` and `warm` import what children need:
    the one what all of them do, before the first is forked, the other what agents do besides."""

    common: Callable[[], None]
    control: Callable[[Plan, Places, list[socket.socket], int], None]
    warm: Callable[[], None]
    agent: Callable[[Path], None]
    relay: Callable[[list[tuple[str, str]], Path], None]


class Child(msgspec.Struct):
    """A process that is kept running."""

    name: str
    start: Callable[[], None]
    pid: int = 0
    starts: int = 0
    quick_deaths: int = 0
    since: float = 0.0
    due: float = 0.0  # when to start it again; 0 = it runs


class Keeper:
    """Keeps `plan`'s processes; `progress` is where who waits for `up` reads JSON lines."""

    def __init__(
        self,
        plan: Plan,
        places: Places,
        listening: Callable[[], list[socket.socket]],
        progress: int,
        work: Work,
    ) -> None:
        self.plan, self.places, self.listening, self.progress, self.work = (
            plan,
            places,
            listening,
            progress,
            work,
        )
        self.sockets: list[socket.socket] = []
        self.children: dict[str, Child] = {}
        self.ending = False
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)

    def run(self) -> None:
        """Until SIGTERM."""
        self._listen()
        self.work.common()
        self.sockets = self.listening()
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self._add("control", self._control)
        self.work.warm()
        self._wait_for_kubeconfigs()
        for node in self.plan.nodes:
            self._add(f"agent {node.name}", lambda name=node.name: self._agent(name))  # type: ignore[misc]
        self._add("relay", self._relay)
        for outside in self.plan.worlds:
            if outside.world.serve:
                self._add(f"world {outside.world.name}", lambda one=outside: self._world(one))  # type: ignore[misc]
        selector = selectors.DefaultSelector()
        selector.register(wake, selectors.EVENT_READ, None)
        selector.register(self.server, selectors.EVENT_READ, None)
        while not self.ending:
            for key, _ in selector.select(self._until_due()):
                if key.fileobj == wake:
                    self._signals(os.read(wake, 512))
                else:
                    self._answer()
            self._reap()
            self._start_due()

    # -- children

    def _add(self, name: str, start: Callable[[], None]) -> None:
        self.children[name] = Child(name, start)
        self._start(self.children[name])

    def _start(self, child: Child) -> None:
        child.since, child.due = time.monotonic(), 0.0
        child.starts += 1
        child.pid = os.fork()
        if child.pid == 0:
            self._become(child)

    def _become(self, child: Child) -> None:
        """In the fork: run, and never come back into the keeper."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            self.server.close()
            name_process(f"podwire-{child.name.rpartition(' ')[2]}")  # podwire-control, podwire-n1
            log_to(log_path(self.places, child.name))
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

    def _agent(self, node: str) -> None:
        for one in self.sockets:
            one.close()
        os.close(self.progress)
        join_cgroup(self.places.agent_cgroup(node))
        namespaces.enter(str(self.places.netns(node)))
        self.work.agent(self.places.node(node) / "agent.json")

    def _relay(self) -> None:
        """One Hubble server for all nodes."""
        nodes = [
            (f"{self.plan.name}/{node.name}", f"unix://{self.places.node(node.name)}/hubble.sock")
            for node in self.plan.nodes
        ]
        self.work.relay(nodes, self.places.hubble)

    def _world(self, outside: Outside) -> None:
        """A host outside answers on its ports."""
        name = outside.world.name
        join_cgroup(self.places.node_cgroup(name))
        namespaces.enter(str(self.places.netns(name)))
        words = images.web(list(outside.world.serve))
        os.execve(words[0], words, {"HOSTNAME": name, "PATH": os.environ.get("PATH", "")})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children.values():
                if child.pid == pid:
                    self._died(child, os.waitstatus_to_exitcode(status))

    def _died(self, child: Child, code: int) -> None:
        now = time.monotonic()
        child.quick_deaths = 0 if now - child.since > STEADY else child.quick_deaths + 1
        wait = 0.0 if child.quick_deaths <= 1 else min(10.0, 0.1 * 2.0**child.quick_deaths)
        child.pid, child.due = 0, now + wait
        how = f"with signal {-code}" if code < 0 else f"with exit code {code}"
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
                connection.sendall(json.dumps(self._do(request)).encode() + b"\n")
            except (OSError, ValueError) as error:
                print(f"a request could not be answered: {error}", file=sys.stderr)

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "status":
                return {"children": [_shown(child) for child in self.children.values()]}
            case "restart":
                child = self.children.get(str(request.get("what")))
                if child is None:
                    return {"error": f"there is no {request.get('what')} here"}
                child.quick_deaths = 0
                child.since = 0.0
                if child.pid:
                    os.kill(child.pid, signal.SIGTERM)
                else:
                    child.due = time.monotonic()
                return {"restarting": child.name, "starts": child.starts}
        return {"error": "unknown request"}

    def _signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self.ending = True

    def _wait_for_kubeconfigs(self) -> None:
        """Agents need a kubeconfig, which the control process writes when its API listens."""
        wanted = [self.places.node(node.name) / "kubeconfig" for node in self.plan.nodes]
        while not all(path.exists() for path in wanted):
            self._reap()
            self._start_due()
            time.sleep(0.005)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            os.write(self.progress, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return  # nobody waits any more
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise


def _shown(child: Child) -> dict[str, Any]:
    return {"name": child.name, "pid": child.pid, "starts": child.starts}


def ask(places: Places, request: dict[str, Any]) -> dict[str, Any] | None:
    """The keeper's answer; None where there is no keeper (any more)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(places.keeper_socket))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = connection.makefile("rb").readline()
        except OSError:
            return None
    return json.loads(answer) if answer else None


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
