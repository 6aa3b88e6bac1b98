"""Marks in file names that ComfyUI's page replaces for its own savers only: %date:yyyy-MM-dd% and %KSampler.seed%.

Done here, they also work for programs that queue over the API. ComfyUI's folder_paths.get_save_image_path replaces
%width%, %height%, %year%, %month%, %day%, %hour%, %minute% and %second% later. Imports no torch and no ComfyUI.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

_MARK = re.compile(
    # Those filled in elsewhere are taken whole, so that no mark begins at the end of one: %year%-v1.2-%month%.
    "%(?:score|level|width|height|year|month|day|hour|minute|second|batch_num)%"
    "|%date:(?P<date>[^%]+)%"
    r"|%(?P<node>[^%.]+)\.(?P<widget>[^%.]+)%"
)
_DATE = re.compile("dd?|MM?|hh?|mm?|ss?|yyyy|yy")
_IN_A_VALUE = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
_IN_A_PATH = re.compile(r'[?<>:*|"\x00-\x1f\x7f]')
"""What Windows forbids in names. Replaced on every system, so that a workflow makes the same names everywhere."""


def filled(name: str, prompt: Mapping[str, Any], workflow: Mapping[str, Any], now: datetime) -> tuple[str, list[str]]:
    """The name with dates and values of widgets filled in, and the marks that no node or widget belongs to.

    Those stay in the name, as ComfyUI's page leaves them. Characters that Windows forbids become ``_``.

    Args:
        prompt: the queued graph in API form: id -> class_type, inputs, and _meta where the page sent it.
        workflow: the page's own form of it; empty for programs that send none. It says which nodes were renamed.
        now: the time of the server (ComfyUI's page takes that of the browser).
    """
    unknown: list[str] = []

    def fill(mark: re.Match[str]) -> str:
        if mark["date"]:
            return _DATE.sub(lambda part: _date_part(part[0], now), mark["date"])
        if not mark["node"]:
            return mark[0]
        value = _value(mark["node"], mark["widget"], prompt, workflow)
        if value is None:
            unknown.append(mark[0])
            return mark[0]
        return _IN_A_VALUE.sub("_", value)

    return _IN_A_PATH.sub("_", _MARK.sub(fill, name)), unknown


def _date_part(letters: str, now: datetime) -> str:
    year = str(now.year)
    if letters[0] == "y":
        return year if len(letters) == 4 else year[2:]
    parts = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}
    return str(parts[letters[0]]).zfill(len(letters))


def _value(name: str, widget: str, prompt: Mapping[str, Any], workflow: Mapping[str, Any]) -> str | None:
    """The value of a widget of the first node of that name; None where there is none, or a link stands in its place."""
    node = next(_nodes(name, prompt, workflow), None)
    value = prompt[node].get("inputs", {}).get(widget, []) if node is not None else []
    if isinstance(value, list | dict):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # as the page writes it
    return "" if value is None else str(value)


def _nodes(name: str, prompt: Mapping[str, Any], workflow: Mapping[str, Any]) -> Iterator[str]:
    """Ids in the page's order of preference: the "Node name for S&R", which is the class unless changed; the title."""
    shown = {str(node.get("id")): node for node in workflow.get("nodes", []) if isinstance(node, dict)}
    for node in prompt:
        properties = shown.get(node, {}).get("properties") or {}
        if properties.get("Node name for S&R") == name:
            yield node
    yield from (node for node, about in prompt.items() if about.get("class_type") == name)
    for node, about in prompt.items():
        if name in (shown.get(node, {}).get("title"), (about.get("_meta") or {}).get("title")):
            yield node
