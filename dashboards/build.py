"""Build every dashboard into the committed JSON, in Grafana's classic provisioning layout."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import fleet, incident, probe, source

OUT = Path(__file__).resolve().parent / "provisioning"

DATASOURCES = f"""# Grafana data source: the warehouse, as its reader. Set TGW_WAREHOUSE_HOST, TGW_WAREHOUSE_PORT and
# TGW_WAREHOUSE_READER_PASSWORD in Grafana's environment.
apiVersion: 1
datasources:
  - name: {source.NAME}
    uid: {source.UID}
    type: {source.PLUGIN}
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
    type: file
    allowUiUpdates: false
    options:
      path: /var/lib/grafana/dashboards/tgw
"""


def documents() -> dict[str, dict[str, object]]:
    """Dashboard JSON by uid."""
    out = {}
    for room in (fleet, incident, probe):
        document = json.loads(json.dumps(room.build().build(), cls=JSONEncoder))
        out[str(document["uid"])] = document
    return out


def files() -> dict[Path, str]:
    """Every file that belongs in `provisioning/`, with its text. The same input gives the same bytes."""
    out = {
        OUT / "datasources" / "tgw.yaml": DATASOURCES,
        OUT / "dashboards" / "tgw.yaml": PROVIDER,
    }
    for uid, document in documents().items():
        out[OUT / "dashboards" / "tgw" / f"{uid}.json"] = json.dumps(document, indent=1, sort_keys=True) + "\n"
    return out


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
