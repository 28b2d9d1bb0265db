"""Options of `podwire hubble` to a request, a connection and a printer."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

from podwire.api import flow_pb2, observer_pb2
from podwire.base.errors import UsageError
from podwire.cli.agents import on_command_line, relay_of
from podwire.cli.hubble_filters import FilterFlags
from podwire.cli.hubble_print import FORMS, Printer
from podwire.cli.hubble_text import TIME_FORMATS, Style, as_json
from podwire.client.target import Connection
from podwire.model.flow import ALL, DEFAULT_LAST, PRINTED_FIELDS

FILTER = """for example '{"source_pod":["prod/web"]}'; --print-raw-filters shows the filters of flags"""
DEFAULT_SERVER = "localhost:4245"
LONGEST = 365 * 24 * 3600.0  # s: beyond it gRPC's clock and the kernel's have no time
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
TIMES = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H%z",
    "%Y-%m-%dT%H:%M%z",
    "%Y-%m-%dT%H:%M:%S%z",
    "%a, %d %b %Y %H:%M:%S %z",
)
# Besides what `hubble` asks for: what --print-policy-names and --because print.
POLICY_FIELDS = (
    "traffic_direction",
    "policy_match_type",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
)


def flows_request(filters: list[tuple[str, str]], options: dict[str, Any]) -> Any:
    """observer.GetFlowsRequest; UsageError for options that contradict each other."""
    first, last, follow = options["first"], options["last"], options["follow"]
    for one, other in (
        ("first", "last"),
        ("first", "everything"),
        ("first", "follow"),
        ("last", "everything"),
    ):
        if options[one] and options[other]:
            names = {"everything": "all"}
            raise UsageError(f"cannot set both --{names.get(one, one)} and --{names.get(other, other)}")
    if follow and options["until"]:
        raise UsageError("cannot set both --until and --follow", hint="who follows has no end")
    request = observer_pb2.GetFlowsRequest(number=first or last or 0, first=bool(first), follow=follow)
    if options["since"]:
        _set_moment(request.since, "since", options["since"])
    if options["until"]:
        _set_moment(request.until, "until", options["until"])
        since = request.since.ToNanoseconds() if options["since"] else None
        if since is not None and since > request.until.ToNanoseconds():
            raise UsageError(
                f"--until {options['until'][:60]} is before --since {options['since'][:60]}",
                hint="no flow can be between them",
            )
    if not (request.HasField("since") or request.HasField("until") or first):
        if options["everything"]:
            request.number = ALL
        elif not last and not follow:
            request.number = DEFAULT_LAST

    flags = FilterFlags()
    for name, value in filters:
        flags.add(name, value)
    request.whitelist.extend(flags.whitelist() + _raw("allowlist", options["allowlist"]))
    request.blacklist.extend(flags.blacklist() + _raw("denylist", options["denylist"]))
    _mask(request, options)
    return request


def _set_moment(stamp: Any, flag: str, text: str) -> None:
    """`stamp` as `text` says; what lies beyond the years that a Timestamp has is refused."""
    try:
        stamp.FromNanoseconds(moment(text))
    except UsageError as error:
        raise UsageError(f"--{flag}: {error}", hint=error.hint) from error
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--{flag} {text[:60]} is beyond the years 1 to 9999",
            hint="for example 5m or 2026-11-23T16:00:00Z",
        ) from error


def _mask(request: Any, options: dict[str, Any]) -> None:
    form = _form(options)
    chosen = [path for paths in options["field_mask"] for path in paths.split(",")]
    if form in ("json", "jsonpb"):
        try:
            request.field_mask.paths.extend(chosen)
        except ValueError as error:
            raise UsageError(
                "invalid --field-mask value: it is no text", hint="for example time,verdict"
            ) from error
    elif chosen:
        raise UsageError(f"{form} output format is not compatible with custom field mask")
    elif options["use_default_field_masks"]:
        request.field_mask.paths.extend(PRINTED_FIELDS)
        if options["because"] or options["print_policy_names"]:
            request.field_mask.paths.extend(POLICY_FIELDS)
    if not request.field_mask.paths:
        request.ClearField("field_mask")


def _raw(name: str, texts: tuple[str, ...]) -> list[Any]:
    if not texts:
        return []
    from google.protobuf.json_format import Parse, ParseError  # 50 ms that few need

    if not all(text.lstrip().startswith("{") for text in texts):
        raise UsageError(f"invalid --{name} flag: it is no JSON object", hint=FILTER)
    try:
        return [Parse(text, flow_pb2.FlowFilter()) for text in texts]
    except ParseError as error:
        # The lines after the first list fields.
        raise UsageError(f"invalid --{name} flag: {str(error).splitlines()[0]}", hint=FILTER) from error
    except (TypeError, ValueError, RecursionError) as error:  # JSON, but not of a filter's values
        raise UsageError(f"invalid --{name} flag: it takes a FlowFilter as JSON", hint=FILTER) from error


def raw_filters(request: Any) -> str:
    """The filters as YAML of JSON, as --allowlist and --denylist take them."""
    lines = []
    for name, filters in (("allowlist", request.whitelist), ("denylist", request.blacklist)):
        if filters:
            lines.append(f"{name}:")
            lines += ["    - '" + as_json(each).replace("'", "''") + "'" for each in filters]
    return "\n".join(lines) + "\n" if lines else "{}\n"


def printer(options: dict[str, Any]) -> Printer:
    form = _form(options)
    if form in ("table", "tab") and options["follow"]:
        raise UsageError("table output format is not compatible with follow mode")
    by_name = {name.lower(): name for name in TIME_FORMATS}
    time_format = by_name.get(options["time_format"].lower())
    if time_format is None:
        raise UsageError(
            f"--time-format: unknown time format {options['time_format']!r}",
            hint=f"one of {', '.join(TIME_FORMATS)}",
        )
    style = Style(
        time_format=time_format,
        translate=options["ip_translation"] and not options["numeric"],
        node=options["print_node_name"],
        policies=options["print_policy_names"],
        because=options["because"],
        colour=options["color"] == "always" or (options["color"] == "auto" and sys.stdout.isatty()),
    )
    return FORMS[form](style, follow=options["follow"], silent=options["silent_errors"])


def _form(options: dict[str, Any]) -> str:
    form: str = options["output"].lower()
    if form not in FORMS:
        raise UsageError(
            f"--output: invalid output format: {options['output']}", hint=f"one of {', '.join(FORMS)}"
        )
    return form


def connection(options: dict[str, Any]) -> Connection:
    return Connection(
        server=_server(options),
        tls=options["tls"],
        ca_files=options["tls_ca_cert_files"],
        certificate=options["tls_client_cert_file"],
        key=options["tls_client_key_file"],
        server_name=options["tls_server_name"],
        timeout=_seconds("timeout", options["timeout"]),
        request=_seconds("request-timeout", options["request_timeout"]),
    )


def _server(options: dict[str, Any]) -> str:
    """What is written wins over what the environment says, and there HUBBLE_SERVER over PODWIRE_SANDBOX."""
    written, server, sandbox = on_command_line, options["server"], options["sandbox"]
    if written("server") and written("sandbox"):
        raise UsageError("--server and --sandbox name two servers", hint="give one of them")
    if sandbox is not None and (written("sandbox") or not server):
        return relay_of(sandbox)
    return DEFAULT_SERVER if server is None else str(server)


def _seconds(flag: str, text: str) -> float:
    found = duration(text)
    if not found and found is not None:
        raise UsageError(f"--{flag} {text[:60]}: no time at all is too short", hint="for example 500ms or 5s")
    if found is None:
        raise UsageError(f"--{flag}: {text[:60]!r} is not a duration", hint="for example 500ms, 5s or 1m30s")
    if found > LONGEST:
        raise UsageError(f"--{flag} {text[:60]} is longer than a year", hint="for example 500ms, 5s or 1m30s")
    return found


def duration(text: str) -> float | None:
    """Seconds of ``1h30m``; None if it is no duration."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def moment(text: str) -> int:
    """ns since the epoch of a time, or of so long ago; UsageError if it is neither."""
    ago = duration(text)
    if ago is not None:
        return time.time_ns() - int(ago * 1e9)
    fraction = re.search(r"\.(\d{1,9})", text)
    whole = text.replace(fraction[0], "") if fraction else text
    for form in TIMES:
        try:
            at = datetime.strptime(whole, form)
        except ValueError:
            continue
        nanos = int(fraction[1].ljust(9, "0")) if fraction else 0
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000 + nanos
    raise UsageError(f"failed to convert {text} to time", hint="for example 5m or 2026-11-23T16:00:00Z")
