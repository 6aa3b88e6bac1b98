"""Holds that a built page loads nothing from another host: no script, style, font or picture. Links may lead anywhere.

A hook of mkdocs, named in mkdocs.yml: what it finds is a warning, which ends a strict build. Standard library only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.hosts")

ELSEWHERE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)
LOADED = ("src", "srcset", "poster", "data")
"""Attributes whose address a browser fetches by itself. ``href`` is one of them in ``link`` and in SVG only."""
NOT_FETCHED = {"canonical", "alternate", "next", "prev", "author", "license", "search"}
"""Relations of a ``link`` that only say something of the page."""


def on_post_build(config: Any) -> None:
    for line in loads_elsewhere(Path(config.site_dir)):
        log.warning("%s", line)


def loads_elsewhere(site: Path) -> list[str]:
    """``"page: address"`` of everything that the pages and styles of a built site load from another host."""
    readers: dict[str, Callable[[str], list[str]]] = {".html": _in_page, ".svg": _in_page, ".css": IN_STYLES.findall}
    return [
        f"{path.relative_to(site).as_posix()} loads {address}"
        for path in sorted(site.rglob("*"))
        if path.suffix in readers
        for address in readers[path.suffix](path.read_text(encoding="utf-8"))
    ]


def _in_page(text: str) -> list[str]:
    page = _Page()
    page.feed(text)
    page.close()
    return page.found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.in_style = tag == "style"
        given = {name: value or "" for name, value in attrs}
        self.found += [address for address in _fetched(tag, given) if ELSEWHERE.match(address)]
        self.found += IN_STYLES.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.found += IN_STYLES.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False


def _fetched(tag: str, given: dict[str, str]) -> Iterator[str]:
    for name in LOADED:
        if name == "srcset":
            yield from (part.split()[0] for part in given.get(name, "").split(",") if part.strip())
        elif name in given:
            yield given[name]
    if tag == "link" and not set(given.get("rel", "").lower().split()) <= NOT_FETCHED:
        yield given.get("href", "")
    if tag in ("image", "use"):
        yield given.get("href", given.get("xlink:href", ""))
