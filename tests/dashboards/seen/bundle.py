"""The page as one bundle: Grafana's packages from npm, as package-lock.json pins them, bundled into out/seen.

python -m tests.dashboards.seen.bundle      installs and bundles where Node and npm are; says what is missing
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.dashboards.seen import browser

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[2] / "out" / "seen"
PACKAGES = OUT / "packages"
# The library names its code editor; no panel opens one, and it is most of the bytes.
WITHOUT = ("monaco-editor", "@monaco-editor/react", "slate", "slate-react", "slate-plain-serializer")
ESBUILD = [
    "--bundle",
    "--minify",
    "--jsx=automatic",
    "--legal-comments=none",
    "--log-level=error",
    '--define:process.env.NODE_ENV="production"',
    "--loader:.woff2=file",
    "--loader:.woff=file",
    "--loader:.ttf=file",
    "--loader:.svg=file",
    "--loader:.js=jsx",
]


class BundleError(Exception):
    """npm or esbuild said no; the message is theirs."""


def missing() -> str | None:
    """Why the dashboards cannot be drawn here; None when they can."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            return f"needs {tool}: tools/setup.sh --seen installs it on Debian, as root"
    if browser.found() is None:
        return "needs Chromium: tools/setup.sh --seen installs it on Debian, as root"
    if _installed() != _wanted():
        return "needs Grafana's packages from npm: tools/setup.sh --seen installs them into out/seen"
    return None


def install() -> None:
    """Install the pinned packages, unless they are there; BundleError."""
    if _installed() == _wanted():
        return
    PACKAGES.mkdir(parents=True, exist_ok=True)
    (PACKAGES / "pins").unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(HERE / name, PACKAGES / name)
    _run(["npm", "ci", "--no-progress"], PACKAGES, 900)
    (PACKAGES / "pins").write_text(_wanted())


def made() -> Path:
    """The folder with the page, bundled anew when a source or a pin has changed; BundleError."""
    sources = sorted((HERE / "page").iterdir())
    key = hashlib.sha256(_wanted().encode() + b"".join(p.name.encode() + p.read_bytes() for p in sources))
    key.update(Path(__file__).read_bytes())
    folder = OUT / f"page-{key.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    for old in OUT.glob("page-*"):
        shutil.rmtree(old, ignore_errors=True)
    making = OUT / f"making-{os.getpid()}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    _run(
        [str(PACKAGES / "node_modules" / ".bin" / "esbuild"), str(HERE / "page" / "main.jsx"), *ESBUILD]
        + [f"--alias:{name}={HERE / 'page' / 'nothing.js'}" for name in WITHOUT]
        + [f"--alias:react-custom-scrollbars-2={HERE / 'page' / 'scrollbars.js'}"]
        + [f"--alias:scrollbars-itself={PACKAGES / 'node_modules' / 'react-custom-scrollbars-2' / 'lib' / 'index.js'}"]
        + [f"--outfile={making / 'main.js'}"],
        PACKAGES,
        300,
        NODE_PATH=str(PACKAGES / "node_modules"),
    )
    shutil.copyfile(HERE / "page" / "index.html", making / "index.html")
    shutil.copytree(PACKAGES / "node_modules" / "@grafana" / "ui" / "dist" / "public", making / "public")
    try:
        making.rename(folder)
    except OSError:  # somebody else was faster
        shutil.rmtree(making)
    return folder


def _wanted() -> str:
    return hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()


def _installed() -> str:
    try:
        return (PACKAGES / "pins").read_text()
    except OSError:
        return ""


def _run(command: list[str], folder: Path, timeout_s: float, **environment: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BundleError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise BundleError(f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()[-1500:]}")


if __name__ == "__main__":
    if (why := missing()) and not why.startswith("needs Grafana"):
        sys.exit(why)
    try:
        install()
        print(made())
    except BundleError as error:
        sys.exit(str(error))
