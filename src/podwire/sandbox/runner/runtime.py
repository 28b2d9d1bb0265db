"""`PodRuntime` of all nodes: what kubectl exec, attach, logs and port-forward reach."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from podwire.apiserver.status import bad_request
from podwire.apiserver.streams import ExecStream, PortStream
from podwire.base.errors import Conflict, NotFound
from podwire.sandbox.runner import logs
from podwire.sandbox.runner.container import ContainerWorker
from podwire.sandbox.runner.node import NodeRunner
from podwire.sandbox.runner.pod import PodWorker
from podwire.sandbox.runner.process import Process
from podwire.sandbox.runner.streams import ExecProcess, PortConnection
from podwire.sandbox.runner.terminal import Attachment

KILLED = 137


class Runtime:
    """Finds the pod on whichever node runs it."""

    def __init__(self) -> None:
        self.runners: list[NodeRunner] = []

    async def exec(
        self, namespace: str, pod: str, container: str | None, command: list[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        """Start `command` in a container. NotFound, or Conflict where it is not running."""
        worker = self._pod(namespace, pod)
        chosen = self._running(worker, container)
        run = worker.place.saved.runs[chosen.name]
        words = worker.place.exec_words(chosen.name, command, tty=tty)
        return ExecProcess(words, run.environment, stdin=stdin, tty=tty)

    async def attach(
        self, namespace: str, pod: str, container: str | None, *, stdin: bool, tty: bool
    ) -> ExecStream:
        """The main process of a container, as it goes on; typing needs `stdin: true` in its spec."""
        worker = self._pod(namespace, pod)
        chosen = self._running(worker, container)
        run = worker.place.saved.runs[chosen.name]
        path = worker.place.log(chosen.name, run.number)
        wanted = logs.Wanted(follow=True, tail=None if chosen.input else 0)

        def exit_code() -> int:
            outcome = worker.place.outcome(chosen.name, run.number)
            return outcome[0] if outcome else KILLED

        if stdin and chosen.input is None:
            raise Conflict(
                f'container "{chosen.name}" has no standard input: its spec does not say stdin: true'
            )
        lines = logs.lines(path, wanted, lambda: run.keeper.alive)
        once = bool(chosen.spec.get("stdinOnce"))
        return Attachment(chosen.input, lines, run.keeper, exit_code, once=once)

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str | None,
        *,
        follow: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        since_time: str | None,
        timestamps: bool,
        previous: bool,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """What a container wrote. NotFound without such a container, 400 without such a run."""
        worker = self._pod(namespace, pod)
        chosen = self._container(worker, container)
        run = worker.place.saved.runs.get(chosen.name)
        if run is None:
            why = chosen.view.state.get("waiting", {}).get("reason", "it has not started")
            raise bad_request(f'container "{chosen.name}" in pod "{pod}" is waiting to start: {why}')
        number = run.number - 1 if previous else run.number
        if number < 0:
            raise bad_request(f'previous terminated container "{chosen.name}" in pod "{pod}" not found')
        begin = logs.since(since_seconds, since_time, time.time())
        wanted = logs.Wanted(follow and not previous, tail_lines, begin, timestamps, limit_bytes)

        def running() -> bool:
            return (run.keeper if not previous else Process(0, -1)).alive

        async for _, text in logs.lines(worker.place.log(chosen.name, number), wanted, running):
            yield text

    async def port_forward(self, namespace: str, pod: str, port: int) -> PortStream:
        """Connect to `port` inside the pod."""
        worker = self._pod(namespace, pod)
        ipv6 = all(":" in address for address in worker.place.saved.addresses)
        return await PortConnection.open(worker.place.netns, port, ipv6=ipv6)

    def find(self, namespace: str, pod: str) -> PodWorker | None:
        """The worker of a pod, on whichever node."""
        for runner in self.runners:
            worker = runner.worker(namespace, pod)
            if worker is not None:
                return worker
        return None

    def _pod(self, namespace: str, pod: str) -> PodWorker:
        worker = self.find(namespace, pod)
        if worker is not None:
            return worker
        raise NotFound(f'pods "{pod}" not found on any node')

    def _container(self, worker: PodWorker, name: str | None) -> ContainerWorker:
        wanted = name or worker.body["metadata"].get("annotations", {}).get(
            "kubectl.kubernetes.io/default-container"
        )
        for container in worker.main + worker.init:
            if not wanted or container.name == wanted:
                return container
        raise NotFound(f"container {wanted} is not valid for pod {worker.name}")

    def _running(self, worker: PodWorker, name: str | None) -> ContainerWorker:
        chosen = self._container(worker, name)
        if not chosen.view.running:
            raise Conflict(f'container "{chosen.name}" in pod "{worker.name}" is not running')
        return chosen
