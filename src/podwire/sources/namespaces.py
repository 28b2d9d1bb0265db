"""Namespaces: their labels are part of their pods' identities."""

from __future__ import annotations

from podwire.sources.objects import Named, labels_of, name_of
from podwire.state.tables import NamespaceRow


def row_of(item: Named) -> NamespaceRow:
    """v1 Namespace → row."""
    _, name = name_of(item)
    return NamespaceRow(name, {"kubernetes.io/metadata.name": name} | labels_of(item))
