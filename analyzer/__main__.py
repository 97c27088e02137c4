"""`python -m analyzer CONFIG.toml`: one analyzer, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys

from analyzer.api.app import build
from analyzer.settings import ENVIRONMENT_PREFIX, Settings
from analyzer.shell import Shell
from contract.documents import DocumentError
from service import logs, settings
from service.listen import server
from service.sqlite import StoreError


async def serve(config: Settings) -> None:
    """Run the analyzer and its API until SIGTERM or SIGINT."""
    shell = Shell(config)
    loop = asyncio.get_running_loop()
    api = server(build(shell.engine, shell), config.listen)
    # uvicorn would take the signals for itself; the shell has to end in good order as well.
    api.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(shell.run())
    serving = asyncio.create_task(api.serve())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shell.stop.set)
    await asyncio.wait([running, serving], return_when=asyncio.FIRST_COMPLETED)
    shell.stop.set()
    api.should_exit = True
    await asyncio.gather(running, serving)


def main(arguments: list[str]) -> int:
    """The exit status: 0 after an ordered end, 2 for a bad command, settings or store."""
    if len(arguments) != 1:
        print("usage: python -m analyzer CONFIG.toml", file=sys.stderr)
        return 2
    try:
        config = settings.load(arguments[0], Settings, ENVIRONMENT_PREFIX)
        logs.configure("analyzer", config.log_level)
        # The driver writes a traceback for every attempt during an outage; the shell says it once.
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        asyncio.run(serve(config))
    except DocumentError as error:
        settings.refuse(error)
    except StoreError as error:
        print(f"{arguments[0]}: state_dir: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All is durable by now. An ordinary exit would wait for threads that wait for a warehouse that hangs.
    os._exit(status)
