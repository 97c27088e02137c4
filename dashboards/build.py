"""Build every dashboard into the committed JSON, in Grafana's classic provisioning layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import fleet, incident, probe, source
from dashboards.source import Places

OUT = Path(__file__).resolve().parent / "provisioning"
PAPER = Path(__file__).resolve().parents[1] / "docs" / "dashboards.md"
BEGIN, END = "<!-- panels: written by dashboards/build.py -->", "<!-- end of panels -->"

DATASOURCES = f"""# Grafana data source: the warehouse, as its reader. Set TGW_WAREHOUSE_HOST, TGW_WAREHOUSE_PORT and
# TGW_WAREHOUSE_READER_PASSWORD in Grafana's environment.
apiVersion: 1
datasources:
  - name: {source.NAME}
    uid: {source.UID}
    type: {source.PLUGIN}
    editable: false
    jsonData:
      host: $TGW_WAREHOUSE_HOST
      port: $TGW_WAREHOUSE_PORT
      protocol: http
      username: reader
      defaultDatabase: tgw
    secureJsonData:
      password: $TGW_WAREHOUSE_READER_PASSWORD
"""

PROVIDER = """# Grafana dashboard provider: copy this file to provisioning/dashboards and the JSON to the path below.
apiVersion: 1
providers:
  - name: tgw
    folder: tgw
    folderUid: tgw
    type: file
    allowUiUpdates: false
    options:
      path: /var/lib/grafana/dashboards/tgw
"""


def documents(places: Places | None = None, uid: str = source.UID) -> dict[str, dict[str, Any]]:
    """Dashboard JSON by uid. `uid`: of the data source that they ask."""
    out = {}
    for room in (fleet, incident, probe):
        text = json.dumps(room.build(places or Places()).build(), cls=JSONEncoder)
        document = json.loads(text, object_hook=lambda value: _asks(value, uid))
        number(document["panels"])
        out[str(document["uid"])] = document
    return out


def _asks(value: dict[str, Any], uid: str) -> dict[str, Any]:
    return {**value, "uid": uid} if value.get("type") == source.PLUGIN and "uid" in value else value


def number(panels: list[dict[str, Any]]) -> None:
    """Give each panel a number of its own, so that a link to it, or an annotation on it, means one panel."""
    for i, panel in enumerate(panels, 1):
        panel["id"] = i


def files() -> dict[Path, str]:
    """Every file that belongs in `provisioning/`, with its text. The same input gives the same bytes."""
    out = {
        OUT / "datasources" / "tgw.yaml": DATASOURCES,
        OUT / "dashboards" / "tgw.yaml": PROVIDER,
    }
    for uid, document in documents().items():
        out[OUT / "dashboards" / "tgw" / f"{uid}.json"] = json.dumps(document, indent=1, sort_keys=True) + "\n"
    before, _, rest = PAPER.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    out[PAPER] = f"{before}{BEGIN}\n\n{described()}\n{END}{after}"
    return out


def described() -> str:
    """What each panel answers, as Markdown."""
    out = []
    for document in documents().values():
        out.append(f"### {document['title']}\n\n{document['description']}\n\n| panel | what it shows |\n|---|---|")
        for panel in document["panels"]:
            if panel["type"] == "row":
                out.append(f"| **{panel['title']}** | |")
            else:
                out.append(f"| {panel['title']} | {panel['description'].replace('|', chr(92) + '|')} |")
        out.append("")
    return "\n".join(out)


def build() -> list[Path]:
    """Write the files; which ones changed."""
    changed = []
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(path)
    return changed


def stale() -> list[Path]:
    """The committed files that are not what the code builds."""
    return [path for path, text in files().items() if not path.exists() or path.read_text() != text]


if __name__ == "__main__":
    for written in build():
        print(written)
