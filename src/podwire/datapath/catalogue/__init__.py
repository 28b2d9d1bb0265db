"""The catalogue of maps: a module here for each header in bpf/lib that declares some, of the same name.

A new map is a struct in bpf/abi, a declaration in a header, and a file here with ``MAPS``: nothing else
names it. Within a step maps are written in the order in which they stand here.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from podwire.base.config import AgentConfig
from podwire.datapath.spec import MapSpec


def collect() -> dict[str, MapSpec]:
    """Name → map, of all modules of this package."""
    found: dict[str, MapSpec] = {}
    for module in iter_modules(__path__, f"{__name__}."):
        maps: tuple[MapSpec, ...] = import_module(module.name).MAPS
        for spec in maps:
            assert spec.name not in found, f"{spec.name} is in the catalogue twice"
            found[spec.name] = spec
    return found


CATALOGUE = collect()


def declared_by(objects: Iterable[str]) -> dict[str, MapSpec]:
    """The maps there are when these objects are loaded."""
    loaded = set(objects)
    return {name: spec for name, spec in CATALOGUE.items() if loaded.intersection(spec.objects)}


def sizes(config: AgentConfig) -> dict[str, int]:
    """Map name → entries, for those the configuration sizes."""
    return {spec.name: getattr(config, spec.size) * spec.times for spec in CATALOGUE.values() if spec.size}
