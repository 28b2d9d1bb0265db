"""One container: start it, probe it, note how it ended, start it again as the pod's policy says."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, Protocol

from podwire.base import moments
from podwire.base.aio import Supervised, boundary
from podwire.sandbox.runner import probes, spec, status, volumes
from podwire.sandbox.runner.place import Place, Run, Setup
from podwire.sandbox.runner.process import Process, ProcessError, ended
from podwire.sandbox.runner.status import ContainerView
from podwire.sandbox.runner.terminal import Input, input_of, stdin_of

Object = dict[str, Any]
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # s between restarts; a kubelet begins with 10 and ends with 300
STEADY = 60.0  # s of running after which the waits begin anew
RETRY = 2.0  # s until what was refused is looked at again
KILLED = 137


class Pod(Protocol):
    """What a container needs of its pod."""

    place: Place
    stopping: bool

    @property
    def body(self) -> Object: ...

    def changed(self) -> None:
        """A container's view changed: report it."""

    def tell(self, kind: str, reason: str, message: str) -> None:
        """An Event about the pod."""

    def environment(self, container: Object) -> dict[str, str]: ...

    def mounts(self, container: Object) -> volumes.Mounts: ...

    def target(self, container: Object) -> probes.Target: ...


class ContainerWorker:
    """Runs one container for the life of its pod."""

    def __init__(self, pod: Pod, container: Object, *, init: bool = False) -> None:
        self.pod, self.spec = pod, container
        self.name: str = container["name"]
        sidecar = init and container.get("restartPolicy") == "Always"
        self.view = ContainerView(self.name, container.get("image", ""), init=init, sidecar=sidecar)
        if init or pod.body["spec"].get("initContainers"):
            self.view.state = status.waiting("PodInitializing")
        self.run: Run | None = None
        self.input: Input | None = None  # of the run, if its spec wants one
        self.settled = (
            asyncio.Event()
        )  # init containers: the next one may start; others: it will not run again
        self._quick_ends = 0
        self._killed_by = ""

    async def work(self) -> None:
        """Until the container is not to be started again."""
        number = self.pod.place.saved.restarts.get(self.name, 0)
        while not self.pod.stopping:
            run = self.run if self.run is not None else await self._start(number)
            if run is not None:
                await self._watch(run)
                if not self.again():
                    break
            number += 1 if run is not None else 0
            self.run = None
            await self._pause(run)
        self.settled.set()

    def adopt(self, run: Run) -> None:
        """Go on with a run that an earlier control process started, whether it ended meanwhile or not."""
        self.run = run
        self.view.id, self.view.restarts = self._id(run.number), run.number
        if run.keeper.alive:
            self.view.state = status.running(moments.at(run.began))
            known = (self.pod.body.get("status") or {}).get("containerStatuses") or []
            before: Object = next((one for one in known if one["name"] == self.name), {})
            self.view.started = bool(before.get("started")) or not self.spec.get("startupProbe")
            self.view.ready = bool(before.get("ready")) or (
                self.view.started and not self.spec.get("readinessProbe")
            )
            if self.view.sidecar and self.view.started:
                self.settled.set()
        else:
            self._note_end(run)

    async def stop(self, grace: float) -> None:
        """SIGTERM; the pod ends by force what is left after `grace`."""
        if self.run is None or not self.view.running:
            return
        hook = ((self.spec.get("lifecycle") or {}).get("preStop") or {}).get("exec")
        if hook:
            with boundary(f"preStop hook of container {self.name}", self._hook_failed):
                await self.exec(list(hook.get("command") or []), grace)
        self.run.process.signal(signal.SIGTERM)

    def _hook_failed(self, error: Exception) -> None:
        self.pod.tell("Warning", "FailedPreStopHook", f"PreStopHook of container {self.name} failed: {error}")

    async def exec(self, command: list[str], timeout: float) -> tuple[int, str]:
        """Run `command` inside and wait: (exit code, output)."""
        if self.run is None:
            return 1, "container is not running"
        words = self.pod.place.exec_words(self.name, command)
        child = subprocess.Popen(
            words,
            env=self.run.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.to_thread(child.communicate, timeout=timeout)
        except subprocess.TimeoutExpired:
            return 1, f"timed out after {timeout:g} s"
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            if child.stdout:
                child.stdout.close()
        return child.returncode, output.decode(errors="replace")[:4096]

    # -- one run

    async def _start(self, number: int) -> Run | None:
        """Start it; None (and a waiting state) where that is not possible."""
        try:
            if problem := probes.unsupported(self.spec):
                raise spec.Refused("CreateContainerConfigError", problem)
            environment = self.pod.environment(self.spec)
            command = spec.command(self.spec, environment)
            mounts = self.pod.mounts(self.spec)
            nobody = Process(0, 0)
            directory = self.spec.get("workingDir") or "/"
            run = Run(number, nobody, nobody, time.time(), environment, directory)
            self.run = await self._start_with(number, command, run, mounts)
        except spec.Refused as error:
            self._wait(error.reason, str(error))
            return None
        except volumes.VolumeRefused as error:
            self._wait("CreateContainerConfigError", str(error))
            return None
        except (ProcessError, OSError, ValueError) as error:  # ValueError: words no process can be given
            self._wait("RunContainerError", str(error))
            return None
        self.view.id, self.view.restarts = self._id(number), number
        self.view.state = status.running(moments.at(self.run.began))
        self.view.started = not self.spec.get("startupProbe")
        self.view.ready = self.view.started and not self.spec.get("readinessProbe")
        self.pod.place.saved.restarts[self.name] = number
        if self.view.sidecar and self.view.started:
            self.settled.set()
        self.pod.tell("Normal", "Started", f"Started container {self.name}")
        self.pod.changed()
        return self.run

    async def _start_with(self, number: int, command: list[str], run: Run, mounts: volumes.Mounts) -> Run:
        self.input = input_of(self.spec)
        tty = self.input is not None and self.input.tty
        try:
            setup = Setup(mounts, stdin_of(self.input), tty)
            return await self.pod.place.start(self.name, number, command, run, setup)
        except BaseException:
            if self.input is not None:
                self.input.close()
            raise
        finally:
            if self.input is not None:
                self.input.started()

    def _wait(self, reason: str, message: str) -> None:
        event = "Failed" if reason != "RunContainerError" else "FailedStart"
        if status.waiting(reason, message) != self.view.state:
            self.pod.tell("Warning", event, f"Error: {message}")
        self.view.state = status.waiting(reason, message)
        self.view.ready = self.view.started = False
        self.pod.changed()

    async def _watch(self, run: Run) -> None:
        """Probe it until it ends; then note how."""
        self._killed_by = ""
        async with Supervised(f"container {self.name}") as group:
            for kind in probes.KINDS:
                if self.spec.get(kind) and (kind == "startupProbe" or not self.spec.get("startupProbe")):
                    group.start(kind, self._probe(kind))
            if self.spec.get("startupProbe"):
                group.once("probes after startup", self._after_startup(group))
            logged = None
            if self.input is not None and self.input.tty:
                log = self.pod.place.log(self.name, run.number)
                logged = group.once("terminal", self.input.keep_log(log))
            await ended(run.keeper)
            if logged is not None:
                await asyncio.wait((logged,), timeout=1)  # what the terminal still holds
        if self.input is not None:
            self.input.close()
        self._note_end(run)
        self.pod.changed()

    def _note_end(self, run: Run) -> None:
        outcome = self.pod.place.outcome(self.name, run.number)
        code, number, when = outcome or (KILLED, signal.SIGKILL, time.time())
        reason = "Completed" if code == 0 else "Error"
        message = ""
        if code in (126, 127) and when - run.began < 1:
            code, reason, message = self._could_not_start(run, code)
        self._quick_ends = 0 if when - run.began > STEADY else self._quick_ends + 1
        self.view.state = status.terminated(
            code, number, reason, message, moments.at(run.began), moments.at(when), self.view.id
        )
        self.view.ready = self.view.started = False

    def _could_not_start(self, run: Run, code: int) -> tuple[int, str, str]:
        """The command may not exist, or may itself have ended with 127: its log tells."""
        try:
            text = self.pod.place.log(self.name, run.number).read_text(errors="replace")[:600]
        except OSError:
            return code, "Error", ""
        if ' F exec: "' not in text:
            return code, "Error", ""
        message = text.split(" F ", 1)[1].splitlines()[0]
        self.pod.tell("Warning", "Failed", f"Error: {message}")
        return 128, "StartError", message

    def again(self) -> bool:
        """Whether a run that ended is followed by another."""
        if self.pod.stopping:
            return False
        policy = self.pod.body["spec"].get("restartPolicy", "Always")
        if self.view.init and not self.view.sidecar:
            return self.view.exit_code != 0 and policy != "Never"
        if self.view.sidecar or policy == "Always":
            return True
        return policy == "OnFailure" and self.view.exit_code != 0

    async def _pause(self, run: Run | None) -> None:
        if run is None:
            await asyncio.sleep(RETRY)
            return
        wait = 0.0 if self._quick_ends <= 1 else min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (self._quick_ends - 2))
        self.view.last = self.view.state
        if wait:
            meta = self.pod.body["metadata"]
            whose = f"container={self.name} pod={meta['name']}_{meta['namespace']}"
            text = f"back-off {wait:g}s restarting failed {whose}"
            self.view.state = status.waiting("CrashLoopBackOff", text)
            self.pod.tell("Warning", "BackOff", f"Back-off restarting failed container {self.name}")
            self.pod.changed()
        await asyncio.sleep(wait)

    # -- probes

    async def _probe(self, kind: str) -> None:
        await probes.watch(self.spec[kind], self.pod.target(self.spec), self.exec, self._reporter(kind))

    async def _after_startup(self, group: Supervised) -> None:
        while not self.view.started:
            await asyncio.sleep(0.05)
        for kind in probes.KINDS[1:]:
            if self.spec.get(kind):
                group.start(kind, self._probe(kind))

    def _reporter(self, kind: str) -> Callable[[bool, str], None]:
        def report(good: bool, why: str) -> None:
            if not good:
                self.pod.tell(
                    "Warning", "Unhealthy", f"{kind.removesuffix('Probe').capitalize()} probe failed: {why}"
                )
            if kind == "readinessProbe":
                self.view.ready = good
            elif kind == "startupProbe" and good:
                self.view.started = True
                self.view.ready = not self.spec.get("readinessProbe")
                if self.view.sidecar:
                    self.settled.set()
            elif not good:
                self._end(kind)
            self.pod.changed()

        return report

    def _end(self, kind: str) -> None:
        """A liveness or startup probe has given up: SIGTERM first, SIGKILL the second time."""
        if self.run is None:
            return
        word = kind.removesuffix("Probe")
        if not self._killed_by:
            self.pod.tell(
                "Normal", "Killing", f"Container {self.name} failed {word} probe, will be restarted"
            )
        self.run.process.signal(signal.SIGKILL if self._killed_by else signal.SIGTERM)
        self._killed_by = kind

    def _id(self, number: int) -> str:
        return f"{self.pod.body['metadata']['uid']}-{self.name}-{number}"
