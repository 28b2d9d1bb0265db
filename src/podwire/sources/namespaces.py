"""Namespaces: their labels are part of their pods' identities."""

from __future__ import annotations

from podwire.sources.objects import Object, labels, mapping, name_of
from podwire.state.tables import NamespaceRow


def row_of(item: Object) -> NamespaceRow:
    """v1 Namespace → row. InvalidObject names what is wrong."""
    _, name = name_of(item)
    found = labels(mapping(item, "metadata"))
    return NamespaceRow(name, {"kubernetes.io/metadata.name": name} | found)
