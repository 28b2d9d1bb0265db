"""The embedded Kubernetes API server: sockets, TLS, who asks, and which handler answers.

Promises: every answer but health and version needs a known client; every failure is a Status;
a mistake of the client is never a 5xx; what was written is there after a restart.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from typing import Any

from aiohttp import web

from podwire.apiserver import bootstrap, connections, content, discovery, openapi, status
from podwire.apiserver.auth import ANONYMOUS, OPEN_PATHS, Authenticator, User, unauthorized
from podwire.apiserver.builtin import registry
from podwire.apiserver.config import ServerConfig
from podwire.apiserver.handlers import Call, Handlers, answer
from podwire.apiserver.kubeconfig import kubeconfig
from podwire.apiserver.objects import Objects
from podwire.apiserver.remote import Remote
from podwire.apiserver.route import Route, resolve, unknown
from podwire.apiserver.store import Store
from podwire.apiserver.streams import PodRuntime
from podwire.apiserver.tls import Authority, write_private
from podwire.base.aio import boundary
from podwire.base.door import Door
from podwire.base.errors import ConfigError, NotPermitted, PodwireError, StorageError

log = logging.getLogger(__name__)

_KEEP = 5.0  # s between looks at the API's own Service
_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


class ApiServer:
    """One server over one directory: `start`, then `run` in a task, then `stop`.

    What a cluster has beside its API is elsewhere (`podwire.controllermanager`, `podwire.operator`)."""

    def __init__(self, config: ServerConfig, runtime: PodRuntime | None = None) -> None:
        self.config = config
        self.runtime = runtime
        directory = config.directory
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(directory, 0o700)
        except PermissionError as error:
            raise NotPermitted(
                f"the API server may not use its directory {directory}: {error.strerror}"
            ) from error
        except OSError as error:
            raise StorageError(
                f"the API server cannot use its directory {directory}: {error.strerror}"
            ) from error
        self.authority = Authority(directory)
        self.authenticator = Authenticator(self.authority, directory)
        self.store = Store(directory / "objects.db")
        self.registry = registry()
        bootstrap.follow_definitions(self.store, self.registry)
        self.objects = Objects(self.store, self.registry, config.cluster)
        self.handlers = Handlers(self.objects, self.authenticator)
        self.remote = Remote(self.objects, runtime)
        self.admission = connections.admission(config.nodes)
        self.silent = connections.silence()
        self._runner: web.ServerRunner | None = None
        self._door: Door | None = None
        self._address = ""
        self._endpoints: list[tuple[str, int]] = []
        self._documents: tuple[int, dict[tuple[str, str], Any]] = (-1, {})

    @property
    def url(self) -> str:
        """``https://host:port`` as clients reach it."""
        return f"https://{self.config.advertise or self._address}"

    async def start(self) -> None:
        """Listen. The port that is taken and the directory that cannot be written are named."""
        sockets = self.config.sockets or [self._bind()]
        self._endpoints = _endpoints(sockets)
        bootstrap.bootstrap(self.objects, self._endpoints)
        names, addresses = self._certified(sockets)
        context = self.authority.context(self.authority.server(names, addresses))
        server = connections.Server(self._answer)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        self._door = connections.door(sockets, context, server, self.admission, self.silent)
        await self._door.__aenter__()
        host, port = sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        admin = self.kubeconfig("kubernetes-admin", ("system:masters",))
        write_private(self.config.directory / "admin.kubeconfig", admin)

    async def run(self) -> None:
        """Keep the API's own Service, for ever: who deleted it meant no harm, and without it no pod reaches
        the API."""
        while True:
            with boundary("keeping the Service kubernetes"):
                bootstrap.keep_service(self.objects, self._endpoints)
            await asyncio.sleep(_KEEP)

    async def stop(self) -> None:
        """Stop listening, end watches, close the database."""
        for watcher in tuple(self.handlers.watchers):
            watcher.end()
        if self._door is not None:
            await self._door.__aexit__(None, None, None)
            self._door = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.store.close()

    def kubeconfig(self, user: str, groups: tuple[str, ...] = (), url: str | None = None) -> bytes:
        """A kubeconfig with a certificate for `user` in `groups`."""
        credentials = self.authority.client(user, groups)
        return kubeconfig(self.config.cluster.name, url or self.url, user, self.authority.pem, credentials)

    def _bind(self) -> socket.socket:
        host, port = self.config.host, self.config.port
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bound = socket.socket(family, socket.SOCK_STREAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"the API server cannot listen on {host}:{port}: {error.strerror}",
                hint="choose another port, or 0 for any that is free",
            ) from error
        return bound

    def _certified(self, sockets: list[socket.socket]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        own = {str(one.getsockname()[0]).partition("%")[0] for one in sockets if one.family != socket.AF_UNIX}
        own |= {"127.0.0.1", "::1", *self.config.addresses, *bootstrap.own_addresses(self.config.cluster)}
        domain = f"kubernetes.default.svc.{self.config.cluster.domain}"
        return (*_NAMES, domain, *self.config.names), tuple(sorted(own - {"0.0.0.0", "::"}))

    # -- requests

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connections.begun(request)
        try:
            return await self._dispatch(request)
        except status.StatusError as error:
            response = answer(error.body(), error.code)
        except StorageError as error:
            log.warning("%s", error)
            failure = status.StatusError(507, "InternalError", str(error))
            response = answer(failure.body(), 507)
        except PodwireError as error:
            response = answer(status.bad_request(str(error)).body(), 400)
        except Exception as error:  # the supervised boundary: one request may fail, the server goes on
            log.exception("%s %s failed", request.method, request.path)
            failure = status.StatusError(500, "InternalError", f"Internal error: {type(error).__name__}")
            response = answer(failure.body(), 500)
        if request.can_read_body and not request.content.at_eof():
            response.force_close()
        return response

    def _user(self, request: web.BaseRequest) -> User:
        header = request.headers.get("Authorization", "")
        if header.startswith("Bearer "):
            user = self.authenticator.by_token(header[7:].strip())
            if user is None:
                raise unauthorized()
            return user
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport else None
        certificate = tls.getpeercert(binary_form=True) if tls else None
        user = self.authenticator.by_certificate(certificate) if certificate else None
        if user is not None:
            return user
        if request.path in OPEN_PATHS and certificate is None:
            return ANONYMOUS
        raise unauthorized()

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        user = self._user(request)
        path = request.path
        if not path.startswith(("/api/", "/apis/")) or path.count("/") < (
            3 if path.startswith("/api/") else 4
        ):
            return self._other(request, path.rstrip("/"))
        if len([part for part in path.split("/") if part]) < (3 if path.startswith("/api/") else 4):
            return self._other(request, path.rstrip("/"))
        route = resolve(self.registry, path)
        form = content.accepted(request.headers.get("Accept", ""))
        call = Call(request, route, user, form)
        return await self._resource(call)

    async def _resource(self, call: Call) -> web.StreamResponse:
        route, request, handlers = call.route, call.request, self.handlers
        if route.subresource in ("exec", "attach", "log", "portforward"):
            if request.method not in ("GET", "POST"):
                raise status.method_not_allowed(request.method)
            return await self.remote.serve(request, call.namespace, route.name, route.subresource)
        if request.method in ("POST", "PUT", "PATCH", "DELETE"):
            raw = await content.read(request)
            call.body = content.decode(raw, request.content_type) if raw else None
        if route.subresource not in ("", "status"):
            return handlers.special(call)
        verb = _verb(request, route)
        if verb not in route.kind.verbs and not (route.subresource or verb == "deletecollection"):
            raise status.method_not_allowed(request.method)
        match verb:
            case "watch":
                return await handlers.watch_all(call)
            case "get":
                return handlers.get(call)
            case "list":
                return handlers.list_all(call)
            case "create":
                return handlers.create(call)
            case "update":
                return handlers.update(call)
            case "patch":
                return handlers.patch(call)
            case "delete":
                return handlers.delete(call)
        return handlers.delete_collection(call)

    def _other(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            raise (
                status.method_not_allowed(request.method)
                if path in ("/api", "/apis", "/version")
                else unknown()
            )
        if path in ("/healthz", "/livez", "/readyz") or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return web.Response(text="ok")
        if path == "/openapi/v2":
            # kubectl asks for it where a kind has no schema in v3; an empty document says as much.
            return web.Response(body=b"", content_type=openapi.V2_PROTOBUF)
        if path == "/version":
            return answer(self._version())
        form = content.accepted(request.headers.get("Accept", ""))
        body = self._discovery(path, form)
        if body is None:
            raise unknown()
        response = answer(body)
        if form.shape == "APIGroupDiscoveryList" and path in ("/api", "/apis"):
            response.headers["Content-Type"] = (
                f"application/json;g=apidiscovery.k8s.io;v={form.version};as=APIGroupDiscoveryList"
            )
        return response

    def _discovery(self, path: str, form: content.Form) -> Any:
        known = self.registry.groups()
        wants_all = form.shape == "APIGroupDiscoveryList"
        match path.strip("/").split("/"):
            case ["api"] if wants_all:
                return discovery.aggregated(self.registry, [""], f"apidiscovery.k8s.io/{form.version}")
            case ["apis"] if wants_all:
                named = [name for name in known if name]
                return discovery.aggregated(self.registry, named, f"apidiscovery.k8s.io/{form.version}")
            case ["api"]:
                return discovery.versions(self.config.advertise or self._address)
            case ["apis"]:
                return discovery.groups(self.registry)
            case ["openapi", "v3"]:
                return self._openapi("")
            case ["openapi", "v3", "api", version] if version in known[""]:
                return self._openapi("", version)
            case ["openapi", "v3", "apis", group, version] if version in known.get(group, ()):
                return self._openapi(group, version)
            case ["api", version] if version in known[""]:
                return discovery.resources(self.registry, "", version)
            case ["apis", group] if group in known:
                return {"kind": "APIGroup", "apiVersion": "v1", **discovery.group(self.registry, group)}
            case ["apis", group, version] if version in known.get(group, ()):
                return discovery.resources(self.registry, group, version)
        return None

    def _openapi(self, group: str, version: str = "") -> Any:
        """Documents are made once for each state of the registry."""
        if self._documents[0] != self.registry.revision:
            self._documents = (self.registry.revision, {})
        made = self._documents[1]
        if (group, version) not in made:
            made[group, version] = (
                openapi.document(self.registry, group, version) if version else openapi.index(self.registry)
            )
        return made[group, version]

    def _version(self) -> Any:
        text = self.config.cluster.version
        major, minor = text.lstrip("v").split(".")[:2]
        return {
            "major": major,
            "minor": minor,
            "gitVersion": text,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none",
            "compiler": "none",
            "platform": "linux/amd64",
        }


def _endpoints(sockets: list[socket.socket]) -> list[tuple[str, int]]:
    """(address, port) where the API is reached: others than loopback, if there are any."""
    found = [(str(one.getsockname()[0]), int(one.getsockname()[1])) for one in sockets]
    found = [one for one in found if not ipaddress.ip_address(one[0].partition("%")[0]).is_unspecified]
    others = [one for one in found if not ipaddress.ip_address(one[0].partition("%")[0]).is_loopback]
    return list(dict.fromkeys(others or found))


def _verb(request: web.BaseRequest, route: Route) -> str:
    watching = request.query.get("watch") in ("true", "1")
    match request.method:
        case "GET":
            if watching:
                return "watch"
            return "get" if route.name else "list"
        case "POST" if not route.name:
            return "create"
        case "PUT" if route.name:
            return "update"
        case "PATCH" if route.name:
            return "patch"
        case "DELETE":
            return "delete" if route.name else "deletecollection"
    raise status.method_not_allowed(request.method)
