"""``python -m podwire.apiserver --dir D --port P``: the API server alone, for tests by hand."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from podwire.apiserver import ApiServer, ServerConfig
from podwire.base.aio import Supervised
from podwire.base.errors import PodwireError
from podwire.base.telemetry import configure_logging


async def _serve(config: ServerConfig) -> None:
    """Until SIGINT or SIGTERM."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    server = ApiServer(config)
    try:
        await server.start()
        print(f"export KUBECONFIG={config.directory / 'admin.kubeconfig'}", flush=True)
        async with Supervised("apiserver") as group:
            group.start("keep what is its own", server.run())
            await ended.wait()
    finally:
        await server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="podwire.apiserver", description=__doc__)
    parser.add_argument("--dir", required=True, type=Path, help="where the state is kept")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 is any")
    arguments = parser.parse_args()
    configure_logging("apiserver")
    try:
        asyncio.run(_serve(ServerConfig(directory=arguments.dir, host=arguments.host, port=arguments.port)))
    except PodwireError as error:
        print(f"Error: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
