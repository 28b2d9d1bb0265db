"""What import-linter's contracts do not say of the imports between podwire's modules."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

# Of these one asks the other for its type alone.
ONLY_TYPES = {("podwire.kube.watch", "podwire.kube.client")}


def imports() -> dict[str, set[str]]:
    """Module to those it imports, wherever in the file: in functions and for types as well."""
    graph = grimp.build_graph("podwire", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Which is understood without the other? Modules in a circle are one module, in several files."""
    found = {
        module: {other for other in others if (module, other) not in ONLY_TYPES}
        for module, others in imports().items()
    }
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        pytest.fail(f"imported in a circle: {' ← '.join(error.args[1])}")
