"""`python -m podwire.agent --config FILE`: the agent of one node, in the network namespace it is started in.

The process that starts it has entered the node's network namespace and cgroup.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from podwire.agent import wiring
from podwire.base.config import AgentConfig
from podwire.base.errors import PodwireError
from podwire.base.telemetry import configure_logging

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """Run until SIGTERM; what is in the kernel goes on."""
    parser = argparse.ArgumentParser(prog="podwire-agent", description="podwire's agent of one node")
    parser.add_argument("--config", type=Path, required=True, help="JSON file; docs/reference/options.md")
    chosen = parser.parse_args(arguments)
    try:
        config = AgentConfig.read(chosen.config)
        configure_logging(f"agent[{config.node_name}]", debug=config.debug)
        asyncio.run(_until_told(config))
    except PodwireError as error:
        log.critical("%s%s", error, f" ({error.hint})" if error.hint else "", exc_info=log.isEnabledFor(10))
        sys.exit(error.exit_code)


async def _until_told(config: AgentConfig) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await wiring.run(config, told)
    log.info("stopped; programs and maps go on without this process")


if __name__ == "__main__":
    main()
