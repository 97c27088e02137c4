"""`python -m gateway.speaker CONFIG.toml`"""

from __future__ import annotations

import os
import signal
import sys

from contract.documents import DocumentError
from gateway.speaker import log
from gateway.speaker.settings import SpeakerSettings
from gateway.speaker.speaker import Speaker
from service import settings as files


def main(arguments: list[str]) -> int:
    """Run until SIGTERM or SIGINT. Status 2: the configuration is refused."""
    if len(arguments) != 1:
        print("usage: python -m gateway.speaker CONFIG.toml", file=sys.stderr)
        return 2
    try:
        settings = files.load(arguments[0], SpeakerSettings, "TGW_SPEAKER_")
    except DocumentError as error:
        files.refuse(error)
    log.configure(settings.log_level, process="speaker", node=settings.node)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(writer, b"."))
    Speaker(settings).run(reader)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
