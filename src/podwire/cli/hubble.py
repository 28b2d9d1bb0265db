"""`podwire hubble`: flows, as `hubble` prints them, with the rule that decided (``--because``)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from podwire.base.errors import InvalidObject, PodwireError
from podwire.cli import output as printing
from podwire.model.flow import ALL, DEFAULT_LAST

# name, short form, help; a flag that takes no value has a help that begins with *.
FILTERS = (
    ("not", "", "*reverse the next filter: leave out what it matches"),
    ("uuid", "", "only the flow with this UUID"),
    ("node-name", "", "flows of nodes with these names (worker-*, cluster/*.example.com)"),
    ("node-label", "", "flows of nodes with these labels"),
    ("cluster", "", "flows from or to endpoints of this cluster"),
    ("from-cluster", "", "flows from endpoints of this cluster"),
    ("to-cluster", "", "flows to endpoints of this cluster"),
    ("protocol", "", "tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp, dns, http, kafka"),
    ("tcp-flags", "", "packets with these flags set (syn,ack)"),
    (
        "type",
        "t",
        "event TYPE[:SUBTYPE]: drop, trace[:to-endpoint …], policy-verdict, trace-sock, capture, l7",
    ),
    ("verdict", "", "FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED"),
    ("drop-reason-desc", "", "dropped for this reason (POLICY_DENIED, POLICY_DENY, …)"),
    ("http-status", "", "HTTP status or its beginning (404, 5+)"),
    ("http-method", "", "HTTP method"),
    ("http-path", "", "HTTP path, a regular expression"),
    ("http-url", "", "HTTP URL, a regular expression"),
    ("http-header", "", "HTTP header, name:value"),
    ("trace-id", "", "flows of this trace"),
    ("ip-trace-id", "", "flows with this IP trace id"),
    ("fqdn", "", "from or to this DNS name (*.example.com)"),
    ("from-fqdn", "", "from this DNS name"),
    ("to-fqdn", "", "to this DNS name"),
    ("ip", "", "from or to this address or CIDR"),
    ("from-ip", "", "from this address or CIDR"),
    ("to-ip", "", "to this address or CIDR"),
    ("snat-ip", "", "translated to this source address"),
    ("ipv4", "4", "*only IPv4"),
    ("ipv6", "6", "*only IPv6"),
    ("ip-version", "", "none, v4 or v6"),
    ("pod", "", "from or to pods whose name begins so: [namespace/]prefix"),
    ("from-pod", "", "from such pods"),
    ("to-pod", "", "to such pods"),
    ("namespace", "n", "from or to this namespace"),
    ("from-namespace", "", "from this namespace"),
    ("to-namespace", "", "to this namespace"),
    ("all-namespaces", "A", "*from or to any namespace"),
    ("from-all-namespaces", "", "*from any namespace"),
    ("to-all-namespaces", "", "*to any namespace"),
    ("label", "l", "from or to endpoints with these labels (app=web, reserved:world)"),
    ("from-label", "", "from endpoints with these labels"),
    ("to-label", "", "to endpoints with these labels"),
    ("service", "", "from or to services whose name begins so: [namespace/]prefix"),
    ("from-service", "", "from such services"),
    ("to-service", "", "to such services"),
    ("port", "", "from or to this port"),
    ("from-port", "", "from this port"),
    ("to-port", "", "to this port"),
    ("workload", "", "from or to this workload: [kind/]name"),
    ("from-workload", "", "from this workload"),
    ("to-workload", "", "to this workload"),
    ("identity", "", "from or to this security identity (a number or a reserved name)"),
    ("from-identity", "", "from this identity"),
    ("to-identity", "", "to this identity"),
    ("traffic-direction", "", "ingress or egress"),
    ("interface", "", "seen on this device"),
    ("encrypted", "", "*only encrypted"),
    ("unencrypted", "", "*only not encrypted"),
)
COUNT = click.IntRange(1, ALL)  # of flows: what the request can say
STATUS_FORMS = click.Choice(["compact", "dict", "json", "jsonpb", "tab", "table"], case_sensitive=False)
LIST_FORMS = click.Choice(["table", "tab", "wide", "json", "jsonpb"], case_sensitive=False)
FILTER_NAMES = {name.replace("-", "_"): name for name, _, _ in FILTERS}


class Observe(click.Command):
    """Keeps the filters in the order of the command line: ``--not`` is about the next one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = [each for one in args for each in self._switch(one)]
        given, _, order = self.make_parser(ctx).parse_args(list(args))
        values = {name: list(given.get(name) or ()) for name in FILTER_NAMES}
        ctx.meta["filters"] = [
            (FILTER_NAMES[each.name], str(values[each.name].pop(0)))
            for each in order
            if values.get(each.name)
        ]
        return super().parse_args(ctx, args)

    def _switch(self, argument: str) -> list[str]:
        """``--flag=false`` as Go programs take it, for the hubble CLI's users: the flag's other form."""
        flag, _, value = argument.partition("=")
        for option in self.params:
            if value not in ("true", "false") or flag not in option.opts or option.multiple:
                continue
            if isinstance(option, click.Option) and option.is_flag:
                return [flag] if value == "true" else list(option.secondary_opts[:1])
        return [argument]


def _filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, short, help in reversed(FILTERS):
        names = [f"--{name}", f"-{short}"] if short else [f"--{name}"]
        if help.startswith("*"):
            option = click.option(
                *names, multiple=True, is_flag=True, flag_value="true", type=str, help=help[1:]
            )
        else:
            option = click.option(*names, multiple=True, metavar="VALUE", help=help)
        command = option(command)
    return command


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option(
                "--server",
                envvar="HUBBLE_SERVER",
                default=None,
                help="host:port, tls://host:port or unix:///path  [default: localhost:4245]",
            ),
            click.option(
                "--sandbox",
                envvar="PODWIRE_SANDBOX",
                metavar="NAME",
                help="the server of a sandbox; HUBBLE_SERVER wins over PODWIRE_SANDBOX, not over the option",
            ),
            click.option("--tls", is_flag=True, envvar="HUBBLE_TLS", help="use TLS (also: tls://host:port)"),
            click.option(
                "--tls-ca-cert-files",
                multiple=True,
                envvar="HUBBLE_TLS_CA_CERT_FILES",
                help="CA that signed the server's certificate",
            ),
            click.option(
                "--tls-client-cert-file",
                default="",
                envvar="HUBBLE_TLS_CLIENT_CERT_FILE",
                help="certificate to show",
            ),
            click.option(
                "--tls-client-key-file", default="", envvar="HUBBLE_TLS_CLIENT_KEY_FILE", help="its key"
            ),
            click.option(
                "--tls-server-name",
                default="",
                envvar="HUBBLE_TLS_SERVER_NAME",
                help="name in the server's certificate",
            ),
            click.option("--timeout", default="5s", show_default=True, help="for dialing"),
            click.option("--request-timeout", default="12s", show_default=True, help="for one answer"),
        )
    ):
        command = option(command)
    return command


@click.group()
def hubble() -> None:
    """Flows: observe, status, list."""


@hubble.command(cls=Observe)
@_filter_options
@click.option(
    "--allowlist", multiple=True, envvar="HUBBLE_ALLOWLIST", help="filters as JSON, like FlowFilter"
)
@click.option("--denylist", multiple=True, envvar="HUBBLE_DENYLIST", help="the same, to leave out")
@click.option("-f", "--follow", is_flag=True, help="go on with what comes")
@click.option("--all", "everything", is_flag=True, help="all flows stored")
@click.option("--last", type=COUNT, default=None, help=f"the last N flows (default {DEFAULT_LAST})")
@click.option("--first", type=COUNT, default=None, help="the first N flows stored")
@click.option("--since", default="", help="since a time (5m, 2026-11-23T16:00:00Z)")
@click.option("--until", default="", help="until a time")
@click.option(
    "-o", "--output", default="compact", show_default=True, help="compact, dict, json, jsonpb or table"
)
@click.option("--because", is_flag=True, help="add the rule that decided")
@click.option("--print-node-name", is_flag=True, help="name the node that saw it")
@click.option("--print-policy-names", is_flag=True, help="name the policies that decided")
@click.option("--time-format", default="StampMilli", show_default=True, help="Go's name of a format")
@click.option("--ip-translation/--no-ip-translation", default=True, help="names instead of addresses")
@click.option("--numeric", is_flag=True, help="no names at all")
@click.option(
    "--color",
    default="auto",
    type=click.Choice(["auto", "always", "never"]),
    show_default=True,
    help="when to use colours",
)
@click.option("--field-mask", multiple=True, help="fields to send, with -o json only")
@click.option(
    "--use-default-field-masks",
    type=bool,
    default=True,
    show_default=True,
    help="ask only for what is printed",
)
@click.option("--print-raw-filters", is_flag=True, help="print the filters and end")
@click.option("-s", "--silent-errors", is_flag=True, help="say nothing when the connection breaks")
@_server_options
@click.pass_context
def observe(context: click.Context, /, **options: Any) -> None:
    """Print flows."""
    from podwire.cli import hubble_request as requests

    request = requests.flows_request(context.meta["filters"], options)
    if options["print_raw_filters"]:
        sys.stdout.write(requests.raw_filters(request))
        return
    printer = requests.printer(options)
    from podwire.cli import hubble_refusals as refusals
    from podwire.client.hubble import Hubble

    with Hubble(requests.connection(options)) as server:
        try:
            for response in server.flows(request):
                printer.write(response)
        except InvalidObject as error:
            raise refusals.told(error, context.meta["filters"], options) from error
        finally:
            printer.close()


@hubble.command()
@click.option(
    "-o", "--output", type=STATUS_FORMS, default="compact", show_default=True, help="how to print it"
)
@_server_options
def status(**options: Any) -> None:
    """How the server is."""
    from podwire.cli import hubble_request as requests
    from podwire.cli import hubble_status
    from podwire.client.hubble import Hubble

    with Hubble(requests.connection(options)) as server:
        health = server.healthy()
        if options["output"] == "compact":
            word = "Ok" if health == "SERVING" else f"Unavailable: {health}"
            click.echo(f"Healthcheck (via {printing.safe(server.address)}): {word}")
        if health != "SERVING":
            raise PodwireError("not healthy")
        sys.stdout.write(hubble_status.status(server.status(), options["output"]))


@hubble.group(name="list")
def list_() -> None:
    """Nodes and namespaces."""


@list_.command()
@click.option("-o", "--output", type=LIST_FORMS, default="table", show_default=True, help="how to print it")
@_server_options
def nodes(**options: Any) -> None:
    """Nodes whose flows the server has."""
    from podwire.cli import hubble_request as requests
    from podwire.cli import hubble_status
    from podwire.client.hubble import Hubble

    with Hubble(requests.connection(options)) as server:
        sys.stdout.write(hubble_status.nodes(server.nodes(), options["output"]))


@list_.command()
@click.option("-o", "--output", type=LIST_FORMS, default="table", show_default=True, help="how to print it")
@_server_options
def namespaces(**options: Any) -> None:
    """Namespaces that had flows in the last hour."""
    from podwire.cli import hubble_request as requests
    from podwire.cli import hubble_status
    from podwire.client.hubble import Hubble

    with Hubble(requests.connection(options)) as server:
        sys.stdout.write(hubble_status.namespaces(server.namespaces(), options["output"]))


def main() -> None:
    """`python -m podwire.cli.hubble`."""
    from podwire.cli import main as podwire

    podwire(["hubble", *sys.argv[1:]])


if __name__ == "__main__":
    main()
