"""Every error renders as one sentence, and the tree in the docstring is the tree."""

import errno
import inspect
import os

import pytest

from podwire.base import errors
from podwire.base.errors import lacking

EXAMPLES = {
    "InvalidObject": lambda: errors.InvalidObject("spec.ingress[0]", "is wrong"),
    "NotSupported": lambda: errors.NotSupported("tcx", since="6.6"),
    "KernelError": lambda: errors.KernelError("write map x", errno.EINVAL),
    "MapFull": lambda: errors.MapFull("podwire_policy", 64),
    "VerifierRejected": lambda: errors.VerifierRejected("podwire_from_pod", errno.EACCES, "log"),
    "ApiError": lambda: errors.ApiError(404, "NotFound", "pods “web” not found"),
}


def classes() -> list[type[errors.PodwireError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.PodwireError)
    ]


def test_every_class_is_in_the_tree_and_renders() -> None:
    for kind in classes():
        assert kind.__name__ in (errors.__doc__ or "")
        error = EXAMPLES.get(kind.__name__, lambda kind=kind: kind("it failed"))()
        text = str(error)
        assert text and "\n" not in text
        assert error.exit_code != 0


def test_a_wrong_object_names_its_path() -> None:
    assert str(errors.InvalidObject("spec.egress[1].toPorts", "is not a list")).startswith(
        "spec.egress[1].toPorts: "
    )


def test_a_missing_feature_names_the_kernel_that_has_it() -> None:
    assert "6.6" in str(errors.NotSupported("tcx", since="6.6"))


def test_root_is_told_which_capability_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lacking("CAP_NET_ADMIN") == "run as root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "CAP_NET_ADMIN" in lacking("CAP_NET_ADMIN") and "root" not in lacking("CAP_NET_ADMIN")
