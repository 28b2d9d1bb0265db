"""Programs onto their hooks, and how a running one is replaced. Which is where, say the `hooks`.

Everything is pinned: links (or where filters are, before Linux 6.6 and of pods in their first moment)
below ``<bpf_dir>/links``, maps below ``<bpf_dir>/maps-<generation>``. A starting agent loads its programs
on the maps that are there and then replaces the program of each link, so there is no moment without one.
Maps that do not fit the programs any more, or are too small, are made new in the next generation (see
`generations`).
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import msgspec

from podwire.base import addresses
from podwire.base.config import AgentConfig
from podwire.base.errors import ConfigError, NotFound, PodwireError
from podwire.bpf import library, probe
from podwire.bpf import link as links
from podwire.bpf import object as loader
from podwire.bpf.library import LinkInfo
from podwire.bpf.map import Map
from podwire.bpf.object import Difference, IncompatibleMaps, Object, ObjectSpec, Program
from podwire.datapath import generations, hooks, objects
from podwire.datapath.catalogue import CATALOGUE, sizes
from podwire.datapath.hooks import Where
from podwire.datapath.maps import Maps

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BINDING = "binding"  # directory of links on their way, see `binding`


class Loading(msgspec.Struct, frozen=True):
    """What to load: plain values, made from the configuration by `plan`."""

    bpf_dir: str
    object_dir: str
    objects: tuple[str, ...]
    constants: dict[str, int | bytes]
    sizes: dict[str, int]
    growth_max: int  # entries beyond which no map grows


def plan(
    config: AgentConfig,
    node_addresses: tuple[str, ...],
    *,
    network_device: int = 0,
    tunnel_device: int,
    tunnel_mtu: int,
) -> Loading:
    """For a node with these underlay addresses.

    Devices are ifindexes: `network_device` is the one towards other nodes (0 = any may be),
    `tunnel_device` 0 = native routing.
    """
    ipv4 = next((one for one in node_addresses if addresses.family(one) == 4), "")
    ipv6 = next((one for one in node_addresses if addresses.family(one) == 6), "")
    return Loading(
        bpf_dir=config.bpf_dir,
        object_dir=objects.directory(config.object_dir),
        objects=hooks.objects(
            (
                Where.POD,
                Where.NETWORK,
                *((Where.OVERLAY,) if tunnel_device else ()),
                *((Where.CGROUP,) if config.socket_lb and config.cgroup else ()),
            )
        ),
        constants={
            "config_node_ipv4": addresses.pack(ipv4) if ipv4 else addresses.ZERO,
            "config_node_ipv6": addresses.pack(ipv6) if ipv6 else addresses.ZERO,
            "config_network_device": network_device,
            "config_tunnel_device": tunnel_device,
            "config_tunnel_port": config.tunnel_port,
            "config_tunnel_token": _tunnel_token(config) if tunnel_device else 0,
            "config_tunnel_mtu": tunnel_mtu,
            "config_trace_interval": config.monitor_aggregation_interval,
            "config_policy_audit": int(config.policy_audit_mode),
            "config_event_share": config.event_share,
            "config_neighbour_share": config.neighbour_share,
            "config_ct_table": config.ct_max,
            "config_ct_share": config.ct_endpoint_max or config.ct_max // 4,
        },
        sizes=sizes(config),
        growth_max=config.map_growth_max,
    )


def _tunnel_token(config: AgentConfig) -> int:
    """Known to this node alone, and to each of its agents until the machine starts anew: programs of two
    agents stand side by side while one takes over from the other."""
    seed = BOOT_ID.read_text() + config.node_name + config.bpf_dir
    return int.from_bytes(blake2b(seed.encode(), digest_size=4).digest()) or 1


class Programs:
    """The loaded programs of one node, and the links that hold them on their hooks."""

    def __init__(self, loading: Loading, directory: str, loaded: dict[str, Object]) -> None:
        self.loading = loading
        self.maps = Maps(directory)
        self._objects = loaded
        self.made_new: tuple[str, ...] = ()  # maps that could not be carried over: they are empty
        self._links = os.path.join(loading.bpf_dir, "links")
        # A pod attached while programs are replaced would keep the old ones.
        self.lock = threading.RLock()
        self._at_limit: set[str] = set()  # maps whose writer has been told: it asks again and again

    # Load

    @classmethod
    def load(cls, loading: Loading) -> Programs:
        """Load all objects on the newest maps; attaches nothing. VerifierRejected leaves all as it was.

        If `made_new` is not empty afterwards, fill those maps before `replace_all`: the programs that run
        have full ones.
        """
        probe.bpffs(_mount_of(loading.bpf_dir))
        for place in (os.path.join("links", "pods"), BINDING):
            os.makedirs(os.path.join(loading.bpf_dir, place), mode=0o700, exist_ok=True)
        current = generations.directory(loading.bpf_dir, generations.newest(loading.bpf_dir))
        try:
            if foreign := generations.of_another_layout(current):
                raise IncompatibleMaps(
                    [Difference(name, "layout", CATALOGUE[name].layout, 0) for name in foreign]
                )
            return cls(loading, current, _load_on(current, loading))
        except IncompatibleMaps as problem:
            log.warning("%s; making them new", problem)
            return cls._load_beside(loading, problem)

    @classmethod
    def _load_beside(cls, loading: Loading, problem: IncompatibleMaps) -> Programs:
        """On the next generation of maps."""
        unfit: dict[str, set[str]] = {}
        remaining: IncompatibleMaps | None = problem
        directory = ""
        try:
            while remaining is not None:
                for one in remaining.differences:
                    unfit.setdefault(one.name, set()).add(one.field)
                directory = generations.prepare(loading.bpf_dir, unfit)
                try:
                    made = cls(loading, directory, _load_on(directory, loading))
                    remaining = None
                except IncompatibleMaps as another:  # each object tells of its own maps
                    remaining = another
            made.made_new = tuple(sorted(generations.copy_grown(loading.bpf_dir, made.maps, unfit)))
            return made
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def program(self, name: str) -> Program:
        for loaded in self._objects.values():
            if name in loaded.programs:
                return loaded.programs[name]
        raise NotFound(f"no loaded object has a program {name}")

    def _loaded(self, name: str) -> bool:
        return any(name in loaded.programs for loaded in self._objects.values())

    # Attach

    def attach_pod(self, interface: str, ifindex: int) -> None:
        """The programs on a pod's host-side device, pinned under its name. All or nothing.

        As filters, links are for later (`binding`).
        """
        self.attach(Where.POD, interface, ifindex)

    def detach_pod(self, interface: str) -> None:
        """Remove the links; also right if the device is gone or nothing was attached."""
        with self.lock:
            for hook in hooks.on(Where.POD):
                _detach(os.path.join(self._links, hook.pin(interface)))

    def attach(self, where: Where, device: str, ifindex: int) -> None:
        """The programs for a device of this kind, pinned under its name. All or nothing."""
        made = []
        attach = links.attach_filter if where is Where.POD else links.attach_device
        with self.lock:
            try:
                for hook in hooks.on(where):
                    path = os.path.join(self._links, hook.pin(device))
                    made.append(path)
                    program = self.program(hook.program)
                    links.ensure_tc(program, ifindex, hook.point, path, attach=attach).close()
            except BaseException:
                for path in made:
                    _detach(path)
                raise

    def attach_cgroup(self, directory: str) -> None:
        """The socket programs on the node's cgroup."""
        for hook in hooks.on(Where.CGROUP):
            path = os.path.join(self._links, hook.pin())
            links.ensure_cgroup(self.program(hook.program), directory, path).close()

    def replace_all(self) -> list[str]:
        """Our programs on every link an earlier agent (or generation) left; the pods' devices.

        One update each, so no packet meets no program. Links whose device is gone are removed. Our maps
        are the node's from now on.
        """
        generations.make_current(self.maps)
        links.all_bound(os.path.join(self._links, "pods"), os.path.join(self.loading.bpf_dir, BINDING))
        pods = set()
        for path in self._pinned():
            found = hooks.of_pin(os.path.relpath(path, self._links))
            with links.open_attached(path) as link:
                info = link.info
                # Of none of our hooks, or what it was for is off now.
                if found is None or not self._loaded(found[0].program):
                    link.detach()
                    continue
                hook, device = found
                if hook.where.is_device and info.ifindex == 0:
                    link.detach()
                    continue
                program = self.program(hook.program)
                if info.program != program.id:
                    link.replace(program)
            if hook.where is Where.POD:
                pods.add(device)
        return sorted(pods)

    def grow(self, name: str, entries: int) -> None:
        """Map `name` with room for `entries`, in use by all programs; what it holds is kept.

        The programs are loaded again on a new generation of maps and take the place of the old ones.
        Only for maps that the caller alone writes: nothing may be written meanwhile.
        """
        with self.lock:
            self._exchange(msgspec.structs.replace(self.loading, sizes={**self.loading.sizes, name: entries}))

    def tell(self, constants: dict[str, int | bytes]) -> None:
        """Programs with these constants in the place of those that run, on the same maps; if the kernel
        refuses a step, those that ran run on."""
        with self.lock:
            if constants != self.loading.constants:
                self._exchange(msgspec.structs.replace(self.loading, constants=constants))

    def _exchange(self, loading: Loading) -> None:
        made = Programs.load(loading)
        try:
            made.replace_all()
        except BaseException:
            self.replace_all()
            made.close()
            if made.maps.directory != self.maps.directory:
                shutil.rmtree(made.maps.directory)
            raise
        replaced = self._objects
        self.loading, self._objects = made.loading, made._objects
        if made.maps.directory != self.maps.directory:
            self.maps.move(made.maps.directory)
        for loaded in replaced.values():
            loaded.close()
        self.drop_old()

    def bigger(self, name: str, entries: int) -> Map[bytes, bytes] | None:
        """For a writer: the map with room for `entries` and more; None, with a reason in the log, if not."""
        limit = self.loading.growth_max
        if entries > limit:
            if name not in self._at_limit:
                self._at_limit.add(name)
                log.warning(
                    "map %s does not grow beyond map-growth-max, %d entries are needed", name, entries
                )
            return None
        try:
            self.grow(name, min(1 << entries.bit_length(), limit))
        except (PodwireError, OSError) as error:  # OSError: pins and directories of generations
            log.warning("map %s cannot grow: %s", name, error)
            return None
        return self.maps.target(name)

    def drop_old(self) -> None:
        """Remove older generations of maps: call when every link has our programs."""
        generations.drop_older(self.loading.bpf_dir)

    def pods(self) -> set[str]:
        """Devices of pods that have a pinned link, or a recorded filter."""
        pins = os.listdir(os.path.join(self._links, Where.POD.value))
        found = (hooks.of_pin(Where.POD.value + pin) for pin in pins)
        return {one[1] for one in found if one is not None}

    def attached(self) -> dict[str, LinkInfo]:
        """Name of the link (or filter) → which program on what, as the kernel says."""
        result = {}
        for path in self._pinned():
            try:
                link = links.open_attached(path)
            except NotFound:
                continue  # detached since it was listed
            with link:
                info = link.info
            if info.program and (info.ifindex or info.type == library.LINK_TYPE_CGROUP):
                result[os.path.relpath(path, self._links)] = info
        return result

    def is_on(self, where: Where, attached: Mapping[str, LinkInfo] | None = None) -> bool:
        """Whether a program is there, as the kernel says."""
        found = map(hooks.of_pin, self.attached() if attached is None else attached)
        return any(one is not None and one[0].where is where for one in found)

    def attach_mode(self, attached: Mapping[str, LinkInfo] | None = None) -> str:
        """How programs are on devices, as the kernel says: ``tcx``, or ``tc`` if one is a filter."""
        kinds = {info.type for info in (self.attached() if attached is None else attached).values()}
        if library.LINK_TYPE_FILTER in kinds:
            return "tc"
        return "tcx" if library.LINK_TYPE_TCX in kinds else "none"

    def _pinned(self) -> list[str]:
        """Paths of all pinned links."""
        return sorted(os.path.join(folder, pin) for folder, _, pins in os.walk(self._links) for pin in pins)

    def close(self) -> None:
        """Close descriptors; what is pinned goes on."""
        self.maps.close()
        for loaded in self._objects.values():
            loaded.close()

    def remove(self) -> None:
        """Take everything off its hooks and remove all pins: the node as it was before podwire."""
        self.close()
        for path in self._pinned():
            _detach(path)
        shutil.rmtree(self.loading.bpf_dir)


def _load_on(directory: str, loading: Loading) -> dict[str, Object]:
    """All objects on the maps of `directory`, which is as before if one of them is refused."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    before = set(os.listdir(directory))
    loaded: dict[str, Object] = {}
    try:
        for mark in generations.marks(directory):  # before the maps: one without a mark is not believed
            os.makedirs(mark, mode=0o700, exist_ok=True)
        for name in loading.objects:
            spec = ObjectSpec(
                os.path.join(loading.object_dir, f"{name}.bpf.o"),
                constants=loading.constants,
                max_entries=loading.sizes,
                pins=directory,
                shared=frozenset(CATALOGUE),
            )
            loaded[name] = loader.load(spec)
    except BaseException:
        for one in loaded.values():
            one.close()
        for name in set(os.listdir(directory)) - before:
            path = os.path.join(directory, name)
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)
        if not before:
            os.rmdir(directory)
        raise
    return loaded


def _detach(path: str) -> None:
    try:
        links.open_attached(path).detach()
    except NotFound:
        pass


def _mount_of(path: str) -> str:
    """The bpf filesystem that `path` is on: one mounted above it, else /sys/fs/bpf."""
    above = [mount for mount in probe.mounts("bpf") if path == mount or path.startswith(mount + "/")]
    if above:
        return max(above, key=len)
    if not path.startswith(probe.BPFFS + "/"):
        raise ConfigError(f"{path} is not on a bpf filesystem", hint=f"set bpf-dir below {probe.BPFFS}")
    return probe.BPFFS
