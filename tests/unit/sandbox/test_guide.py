"""The guide names every image there is a stand-in for, every option, and every key of lab.yaml."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import yaml

from podwire.cli.sandbox import sandbox
from podwire.sandbox import images, lab
from podwire.sandbox.runner.volumes import KINDS

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "sandbox.md").read_text()


def test_every_image_is_in_the_guide() -> None:
    table = GUIDE.split("## Images")[1]
    named = {
        word for line in table.splitlines() if line.startswith("|") for word in line.split("|")[1].split()
    }
    assert {f"`{name}`" for name in images.TABLE if name != "cluster-dns"} <= named


def test_every_command_is_in_the_guide() -> None:
    assert isinstance(sandbox, click.Group)
    for name in sandbox.commands:
        assert f"`{name}" in GUIDE, name


def test_the_guides_lab_is_valid_and_whole() -> None:
    text = GUIDE.split("```yaml\n")[1].split("```")[0]
    document = yaml.safe_load(text)
    lab.parse(document)
    assert set(document) == {field.encode_name for field in msgspec.structs.fields(lab.Lab)}


def test_every_volume_is_in_the_guide() -> None:
    for kind in KINDS:
        assert kind in GUIDE
