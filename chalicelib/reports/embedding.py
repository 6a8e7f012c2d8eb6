"""Embeds the styles and the script of a report page, so that its content security policy allows nothing else."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
CONSOLE = Path(__file__).parent.parent / "console"


def embedded(name: str) -> dict[str, str]:
    """Returns the styles and the script of the page ``name`` for its template, and their hashes for its policy."""
    styles = (CONSOLE / "theme.css", TEMPLATES / "report.css", TEMPLATES / f"{name}.css")
    style = "".join(path.read_text(encoding="utf-8") for path in styles)
    script = "".join((TEMPLATES / f"{each}.js").read_text(encoding="utf-8") for each in ("report", name))
    return {"style": style, "script": script, "style_hash": _csp_hash(style), "script_hash": _csp_hash(script)}


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
