"""Files the client reads: kubeconfigs, YAML documents, manifests; what is wrong in them is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from podwire.base.errors import ConfigError, InvalidObject
from podwire.kube import credentials
from podwire.kube.credentials import Access, from_kubeconfig
from podwire.kube.documents import parse_yaml
from podwire.kube.manifests import load, parse

CONFIG: dict[str, Any] = {
    "current-context": "one",
    "contexts": [
        {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "prod"}},
        {"name": "two", "context": {"cluster": "c"}},
        {"name": "lost", "context": {"cluster": "nowhere"}},
    ],
    "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443/"}}],
    "users": [{"name": "u", "user": {"token": "secret"}}],
}


def written(tmp_path: Path, config: Any) -> Path:
    file = tmp_path / "config"
    file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return file


def test_a_kubeconfig(tmp_path: Path) -> None:
    file = written(tmp_path, CONFIG)
    assert from_kubeconfig(file) == Access("https://192.0.2.1:6443", token="secret", namespace="prod")
    assert from_kubeconfig(file, "two").token == ""


@pytest.mark.parametrize(
    ("config", "context", "problem"),
    [
        ("", None, "is not one YAML document"),
        ("{", None, "is not valid"),
        (CONFIG, "three", "no context named “three”"),
        (CONFIG, "lost", "no cluster named “nowhere”"),
        ({**CONFIG, "clusters": [{"name": "c", "cluster": {}}]}, None, "names no server"),
        (
            {**CONFIG, "users": [{"name": "u", "user": {"client-key-data": "%"}}]},
            None,
            "cannot read client-key",
        ),
        (
            {**CONFIG, "users": [{"name": "u", "user": {"client-key": "absent"}}]},
            None,
            "cannot read client-key",
        ),
    ],
)
def test_a_wrong_kubeconfig(tmp_path: Path, config: Any, context: str | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        from_kubeconfig(written(tmp_path, config), context)


def test_no_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the kubeconfig"):
        from_kubeconfig(tmp_path / "absent")


def test_credentials_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not usable"):
        Access("https://x", authority=b"nonsense").tls()
    with pytest.raises(ConfigError, match="not usable"):
        Access("https://x", certificate=b"nonsense", key=b"more").tls()


def test_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="no pod of a cluster"):
        credentials.in_cluster()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(credentials, "_MOUNT", tmp_path)
    with pytest.raises(ConfigError, match="service account's mount"):
        credentials.in_cluster()
    (tmp_path / "ca.crt").write_bytes(b"ca")
    (tmp_path / "namespace").write_text("prod\n")
    found = credentials.in_cluster()
    assert (found.server, found.authority, found.namespace) == ("https://[fd00::1]:443", b"ca", "prod")


def test_documents() -> None:
    found = list(parse_yaml("# first\na: 1\n---\n---\nb: 2026-01-01\nyes: on\n2: x\n"))
    assert [(one.body, one.line) for one in found] == [
        ({"a": 1}, 2),
        ({"b": "2026-01-01", "true": True, "2": "x"}, 5),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "line 2: not YAML"),
        ("a: &x 1\nb: *x", "line 2: aliases"),
        ("a: !!python/object:os.system x", "not YAML"),
        ("a: !!binary aGk=", "values of type bytes"),
        ("? [a]\n: b", "not YAML"),
        ("a: " + "[" * 200 + "]" * 200, "nested too deeply"),
        ("a: \x00", "not YAML"),
    ],
)
def test_wrong_documents(text: str, problem: str) -> None:
    with pytest.raises(InvalidObject, match=problem):
        list(parse_yaml(text))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a\n", "f.yaml:1: is no Kubernetes object"),
        ("a: 1\n---\nkind: Pod\n", "f.yaml:1: apiVersion is missing"),
        ("apiVersion: v1\nkind: Pod\n", "f.yaml:1: metadata.name is missing"),
        ("a: [\n", "f.yaml: line 2"),
    ],
)
def test_wrong_manifests(text: str, problem: str) -> None:
    with pytest.raises(InvalidObject, match=problem):
        parse(text, "f.yaml")


def test_folders_of_manifests(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json"):
        (tmp_path / name).write_text(
            f'{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}}}'
        )
    (tmp_path / "README.md").write_text("not this")
    assert [one.body["metadata"]["name"] for one in load([tmp_path])] == ["a.yml", "b.yaml", "c.json"]
    with pytest.raises(InvalidObject, match="cannot be read"):
        load([tmp_path / "absent.yaml"])
