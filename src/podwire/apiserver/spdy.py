"""SPDY/3.1 framing, the server's side, as far as kubectl port-forward uses it. Pure: bytes in, events out.

Draft draft-mbelshe-httpbis-spdy-00; there is no flow control, as the peer's library has none.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language
accept-ranges age allow authorization cache-control connection content-base content-encoding
content-language content-length content-location content-md5 content-range content-type date etag
expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since
last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer
retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate
method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(len(word).to_bytes(4, "big") + word.replace("_", " ").encode() for word in _WORDS.split())
    + _REST.encode()
)

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 1
_CONTROL = 0x80000000 | 3 << 16
_LARGEST = 1 << 20  # bytes of a frame or of headers


class ProtocolError(Exception):
    """The peer does not speak SPDY/3.1."""


class Opened(NamedTuple):
    """The client opened a stream."""

    stream: int
    headers: dict[str, str]
    ended: bool


class Data(NamedTuple):
    """Data on a stream; `ended`: the client sends no more on it."""

    stream: int
    data: bytes
    ended: bool


class Reset(NamedTuple):
    """The client gave a stream up."""

    stream: int


class Ping(NamedTuple):
    """To be answered with `ping`."""

    number: int


Event = Opened | Data | Reset | Ping


class Framer:
    """One connection. `receive` turns bytes into events; the other methods make bytes to send."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[Event]:
        self._buffer += data
        while len(self._buffer) >= 8:
            size = int.from_bytes(self._buffer[5:8], "big")
            if size > _LARGEST:
                raise ProtocolError(f"a frame of {size} bytes")
            if len(self._buffer) < 8 + size:
                return
            first = int.from_bytes(self._buffer[:4], "big")
            flags = self._buffer[4]
            body = bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            if first & 0x80000000:
                yield from self._control(first, flags, body)
            else:
                yield Data(first, body, bool(flags & _FIN))

    def _control(self, first: int, flags: int, body: bytes) -> Iterator[Event]:
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != 3:
            raise ProtocolError(f"version {version}")
        if kind in (_SYN_STREAM, _RST_STREAM, _PING) and len(body) < (10 if kind == _SYN_STREAM else 4):
            raise ProtocolError("a frame that is too short")
        number = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
        if kind == _SYN_STREAM:
            yield Opened(number, self._headers(body[10:]), bool(flags & _FIN))
        elif kind == _RST_STREAM:
            yield Reset(number)
        elif kind == _PING:
            yield Ping(int.from_bytes(body[:4], "big"))

    def _headers(self, raw: bytes) -> dict[str, str]:
        try:
            block = self._inflate.decompress(raw, _LARGEST)
            headers: dict[str, str] = {}
            at = 4
            for _ in range(int.from_bytes(block[:4], "big")):
                name, at = _text(block, at)
                headers[name], at = _text(block, at)
        except (zlib.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"headers: {error}") from error
        return headers

    def reply(self, stream: int) -> bytes:
        """Accept a stream."""
        block = self._deflate.compress(bytes(4)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _frame(_CONTROL | _SYN_REPLY, 0, stream.to_bytes(4, "big") + block)

    def data(self, stream: int, data: bytes, *, end: bool = False) -> bytes:
        """Data on a stream; with `end` it is the last."""
        return _frame(stream, _FIN if end else 0, data)

    def ping(self, number: int) -> bytes:
        """Answer to a ping."""
        return _frame(_CONTROL | _PING, 0, number.to_bytes(4, "big"))

    def reset(self, stream: int) -> bytes:
        """Give a stream up (status CANCEL)."""
        return _frame(_CONTROL | _RST_STREAM, 0, stream.to_bytes(4, "big") + (5).to_bytes(4, "big"))


def _frame(first: int, flags: int, body: bytes) -> bytes:
    return first.to_bytes(4, "big") + bytes([flags]) + len(body).to_bytes(3, "big") + body


def _text(block: bytes, at: int) -> tuple[str, int]:
    size = int.from_bytes(block[at : at + 4], "big")
    end = at + 4 + size
    if end > len(block):
        raise ProtocolError("headers end too early")
    return block[at + 4 : end].decode(), end
