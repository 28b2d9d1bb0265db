#!/usr/bin/env python3
"""Write `src/podwire/abi/` from `bpf/abi/*.h`; with ``--check`` only say whether it would change.

The headers are the one declaration of what C and Python share. Sizes, offsets and values come
from the BTF that clang makes of them, so that the compiler and not this program decides about
padding; comments and ``#define`` numbers come from the text.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).resolve().parent.parent
HEADERS = ROOT / "bpf" / "abi"
OUTPUT = ROOT / "src" / "podwire" / "abi"
CLANG = "clang-16"

PRELUDE = """
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32;
typedef unsigned long long __u64; typedef signed char __s8; typedef short __s16; typedef int __s32;
typedef long long __s64; typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64;
"""
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(slots=True)
class Field:
    """One member: `kind` is int, be (big-endian int), bytes or pad."""

    name: str
    offset: int
    size: int
    kind: str
    comment: str = ""


@dataclass(slots=True)
class Struct:
    name: str
    size: int
    comment: str
    fields: list[Field] = field(default_factory=list)


@dataclass(slots=True)
class Enum:
    name: str
    comment: str
    members: list[tuple[str, int, str]]
    flags: bool


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="fail if the committed files differ")
    check = arguments.parse_args().check

    headers = sorted(HEADERS.glob("*.h"))
    text = "\n".join(path.read_text() for path in headers)
    types = {entry["id"]: entry for entry in compile_btf(headers, text)}
    structs = [read_struct(entry, types, text) for entry in in_order(types, text, ("STRUCT",))]
    enums = [read_enum(entry, text) for entry in in_order(types, text, ("ENUM",))]

    stale = []
    for name, content in {
        "__init__.py": INIT,
        "enums.py": write_enums(enums, text),
        "structs.py": write_structs(structs),
        "dtypes.py": write_dtypes(structs),
    }.items():
        path = OUTPUT / name
        if path.exists() and path.read_text() == content:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            OUTPUT.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    if check and stale:
        print(f"not as bpf/abi says: {', '.join(stale)}; run `make gen`", file=sys.stderr)
        return 1
    return 0


def compile_btf(headers: list[Path], text: str) -> list[dict]:
    """Every type of the headers as `bpftool btf dump -j` tells it."""
    names = re.findall(r"^(struct|union|enum) (\w+) \{", text, re.M)
    # A type is in the BTF only if something has it: one variable for each.
    source = PRELUDE + "".join(f'#include "{path}"\n' for path in headers)
    source += "".join(f"{kind} {name} _{kind}_{name};\n" for kind, name in names)
    with tempfile.TemporaryDirectory() as directory:
        c, o = Path(directory, "abi.c"), Path(directory, "abi.o")
        c.write_text(source)
        subprocess.run([CLANG, "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-c", c, "-o", o], check=True)
        dump = subprocess.run(
            ["bpftool", "btf", "dump", "-j", "file", o], check=True, capture_output=True, text=True
        )
    return json.loads(dump.stdout)["types"]


def in_order(types: dict[int, dict], text: str, kinds: tuple[str, ...]) -> list[dict]:
    """The named types of these kinds, in the order of the headers."""
    found = {entry["name"]: entry for entry in types.values() if entry["kind"] in kinds}
    order = [name for _, name in re.findall(r"^(struct|enum) (\w+) \{", text, re.M)]
    return [found[name] for name in order if name in found]


def read_struct(entry: dict, types: dict[int, dict], text: str) -> Struct:
    made = Struct(entry["name"], entry["size"], comment_before(text, f"struct {entry['name']} {{"))
    body = re.search(rf"^struct {made.name} \{{\n(.*?)^\}};", text, re.M | re.S)
    comments = dict(
        (name, clean(comment))
        for name, comment in re.findall(
            r"(\w+)(?:\[\d+\])?;\s*/\*(.*?)\*/", body.group(1) if body else "", re.S
        )
    )
    for member in entry["members"]:
        size, kind = measure(member["type_id"], types)
        if member["name"] == "pad":
            kind = "pad"
        made.fields.append(
            Field(member["name"], member["bits_offset"] // 8, size, kind, comments.get(member["name"], ""))
        )
    end = 0
    for item in made.fields:
        if item.offset != end:
            raise SystemExit(f"struct {made.name}: a hole before {item.name}; name it pad")
        end = item.offset + item.size
    if end != made.size:
        raise SystemExit(f"struct {made.name}: a hole at the end; name it pad")
    return made


def measure(type_id: int, types: dict[int, dict]) -> tuple[int, str]:
    """(bytes, kind) of a member's type."""
    kind = "int"
    while True:
        entry = types[type_id]
        match entry["kind"]:
            case "TYPEDEF":
                kind = "be" if entry["name"].startswith("__be") else kind
                type_id = entry["type_id"]
            case "INT" | "ENUM":
                return entry["size"], kind if entry["size"] > 1 else "int"
            case "UNION" if entry["name"] == "address":
                return 16, "bytes"
            case "ARRAY":
                size, _ = measure(entry["type_id"], types)
                return size * entry["nr_elems"], "bytes"
            case "STRUCT":
                return entry["size"], "bytes"
            case other:
                raise SystemExit(f"member of kind {other}: not something Python can mirror")


def read_enum(entry: dict, text: str) -> Enum:
    name = entry["name"]
    body = re.search(rf"^enum {name} \{{\n(.*?)^\}};", text, re.M | re.S)
    assert body is not None
    comments = {
        member: clean(comment)
        for member, comment in re.findall(r"(\w+)\s*=[^,]*,\s*/\*(.*?)\*/", body.group(1), re.S)
    }
    values = [(value["name"], value["val"]) for value in entry["values"]]
    prefix = common_prefix([member for member, _ in values], name)
    members = [(member.removeprefix(prefix), value, comments.get(member, "")) for member, value in values]
    return Enum(name, comment_before(text, f"enum {name} {{"), members, "<<" in body.group(1))


def common_prefix(names: list[str], enum: str) -> str:
    """What all members begin with, up to an underscore; for one member the name of its enum."""
    if len(names) == 1:
        return enum.upper() + "_"
    first, last = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("_", 0, length) + 1]


def comment_before(text: str, declaration: str) -> str:
    """The comment directly above `declaration`, else that of its header if it is the first there."""
    found = re.search(rf"/\*((?:(?!\*/).)*)\*/\n{re.escape(declaration)}", text, re.S)
    return clean(found.group(1)) if found else ""


def clean(comment: str) -> str:
    return " ".join(re.sub(r"^\s*\*", "", comment, flags=re.M).split())


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


GENERATED = "Generated by tools/gen_abi.py from bpf/abi."
INIT = f'"""What C and Python share: enums, struct layouts, numpy dtypes.\n\n{GENERATED}\n"""\n'


def docstring(text: str, indent: str = "    ") -> list[str]:
    if not text:
        return []
    lines = wrap(text, 105 - len(indent))
    return [indent + '"""' + ("\n" + indent).join(lines) + '"""', ""]


def write_enums(enums: list[Enum], text: str) -> str:
    out = [
        f'"""Enumerations and numbers of bpf/abi. {GENERATED}"""',
        "",
        "from __future__ import annotations",
        "",
        "from enum import IntEnum, IntFlag",
        "",
    ]
    for name, number in re.findall(r"^#define (\w+)\s+(\w+)$", text, re.M):
        out.append(f"{name} = {int(number, 0)}")
    for enum in enums:
        out += ["", "", f"class {camel(enum.name)}({'IntFlag' if enum.flags else 'IntEnum'}):"]
        out += docstring(enum.comment)
        for member, value, comment in enum.members:
            out.append(f"    {member} = {value}" + (f"  # {comment}" if comment else ""))
    drops = next(enum for enum in enums if enum.name == "drop_reason")
    out += ["", "", "# Text of each drop reason, as tables, metrics and docs show it.", "DROP_TEXT = {"]
    out += [f"    DropReason.{member}: {json.dumps(comment)}," for member, _, comment in drops.members]
    out += ["}", ""]
    return "\n".join(out)


def layout(struct: Struct) -> str:
    """`struct` module format, native order, no alignment of its own."""
    codes = []
    for item in struct.fields:
        if item.kind == "pad":
            codes.append(f"{item.size}x")
        elif item.kind == "bytes":
            codes.append(f"{item.size}s")
        else:
            codes.append(CODES[item.size])
    return "=" + "".join(codes)


SWAP = {2: "_htons", 4: "_htonl"}


def write_structs(structs: list[Struct]) -> str:
    out = [
        f'"""Structs of bpf/abi as frozen values with `pack` and `unpack`. {GENERATED}',
        "",
        "Addresses are their 16 bytes (`podwire.base.addresses.pack`); members that are big-endian in the",
        "kernel (ports in keys) are plain numbers here. Padding is zero and has no member.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from socket import htonl as _htonl",
        "from socket import htons as _htons",
        "from struct import Struct as _Layout",
        "from typing import ClassVar",
        "",
        "import msgspec",
        "",
        "_Raw = bytes  # a member may be called bytes",
    ]
    for struct in structs:
        fields = [item for item in struct.fields if item.kind != "pad"]
        out += ["", "", f"class {camel(struct.name)}(msgspec.Struct, frozen=True, gc=False):"]
        out += docstring(struct.comment)
        out += [
            f'    NAME: ClassVar[str] = "{struct.name}"',
            f"    SIZE: ClassVar[int] = {struct.size}",
            f'    LAYOUT: ClassVar[_Layout] = _Layout("{layout(struct)}")',
            "    OFFSETS: ClassVar[dict[str, int]] = {"
            + ", ".join(f'"{item.name}": {item.offset}' for item in struct.fields)
            + "}",
            "",
        ]
        for item in fields:
            kind, default = ("_Raw", f"_Raw({item.size})") if item.kind == "bytes" else ("int", "0")
            out.append(
                f"    {item.name}: {kind} = {default}" + (f"  # {item.comment}" if item.comment else "")
            )
        packed = ", ".join(
            f"{SWAP[item.size]}(self.{item.name})" if item.kind == "be" else f"self.{item.name}"
            for item in fields
        )
        out += ["", "    def pack(self) -> _Raw:", f"        return self.LAYOUT.pack({packed})", ""]
        out += ["    @classmethod", f"    def unpack(cls, raw: _Raw) -> {camel(struct.name)}:"]
        swapped = {index: item for index, item in enumerate(fields) if item.kind == "be"}
        if not swapped:
            out.append("        return cls(*cls.LAYOUT.unpack(raw))")
        else:
            values = ", ".join(
                f"{SWAP[item.size]}(v[{index}])" if item.kind == "be" else f"v[{index}]"
                for index, item in enumerate(fields)
            )
            out += ["        v = cls.LAYOUT.unpack(raw)", f"        return cls({values})"]
    return "\n".join(out) + "\n"


def write_dtypes(structs: list[Struct]) -> str:
    out = [
        f'"""Structs of bpf/abi as numpy dtypes, members as in C. {GENERATED}',
        "",
        "Apart from `structs` because importing numpy costs 100 ms that a command line does not have.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import numpy as np",
    ]
    for struct in structs:
        fields = [item for item in struct.fields if item.kind != "pad"]
        names, formats = [], []
        for item in fields:
            names.append(item.name)
            if item.kind == "bytes":
                formats.append(f"V{item.size}" if item.size not in (6, 16) else f"({item.size},)u1")
            else:
                formats.append((">" if item.kind == "be" else "=") + f"u{item.size}")
        out += [
            "",
            f"{struct.name.upper()} = np.dtype(",
            "    {",
            f'        "names": {json.dumps(names)},',
            f'        "formats": {json.dumps(formats)},',
            f'        "offsets": {[item.offset for item in fields]},',
            f'        "itemsize": {struct.size},',
            "    }",
            ")",
        ]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
