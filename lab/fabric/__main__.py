"""`python -m lab.fabric CONFIG.toml`: a whole simulated region in one process, in real time, without any root right."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from contract.documents import DocumentError
from lab.fabric.process import ENVIRONMENT_PREFIX, Process, Settings
from service import logs, settings


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM. Status 2: settings refused; 1: the region cannot be made of them."""
    if len(arguments) != 1:
        print("usage: python -m lab.fabric CONFIG.toml", file=sys.stderr)
        return 2
    try:
        config = settings.load(arguments[0], Settings, ENVIRONMENT_PREFIX)
        logs.configure("fabric", config.log_level)
        process = Process(config)
    except DocumentError as error:
        settings.refuse(error)
    except (OSError, ValueError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    asyncio.run(process.serve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
