"""Links for pods' programs, made when there is time.

In the walk: a pod has just been plumbed with filters, and can talk. A link cannot be taken away by who
tidies up qdiscs, and the kernel asks it in fewer steps; but for each one that is made the kernel waits for
a grace period, some 10 ms in which nobody else can make a device. A filter is there at once. So the pod has
filters first, and gets links when no other pod is waiting (`agent.links`).

What is on its way is pinned in ``<bpf_dir>/binding``, so that an agent that is killed over it leaves
nothing that the next one would not finish.
"""

from __future__ import annotations

import os

from podwire.base.errors import NetworkError, NotFound
from podwire.bpf import link as links
from podwire.bpf import probe
from podwire.bpf.filter import Filter
from podwire.datapath import hooks
from podwire.datapath.programs import BINDING, Programs


def unbound(programs: Programs) -> list[str]:
    """Pins of pods' filters that can be links; none on a kernel without."""
    if not probe.supported("tcx"):
        return []
    found = []
    for name in sorted(os.listdir(os.path.join(programs.loading.bpf_dir, "links", "pods"))):
        pin = os.path.join("pods", name)
        try:
            with links.open_attached(_path(programs, pin)) as attached:
                if isinstance(attached, Filter) and attached.info.ifindex:
                    found.append(pin)
        except NotFound:
            continue  # detached since it was listed
    return found


def bind(programs: Programs, pin: str) -> None:
    """A link in the place of the filter recorded as `pin`; a pod that went meanwhile needs none."""
    path, found = _path(programs, pin), hooks.of_pin(pin)
    if found is None:
        return
    # With the lock: who replaces programs, or detaches the pod, finds the one or the other.
    with programs.lock:
        try:
            beside = os.path.join(programs.loading.bpf_dir, BINDING, os.path.basename(pin))
            links.bind(programs.program(found[0].program), path, beside)
        except NotFound:
            return
        except NetworkError:
            if any(one == pin for one in unbound(programs)):
                raise


def _path(programs: Programs, pin: str) -> str:
    return os.path.join(programs.loading.bpf_dir, "links", pin)
