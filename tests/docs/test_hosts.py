"""The check that the documentation's built site loads nothing from another host."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "docs" / "mkdocs" / "hosts.py"
spec = importlib.util.spec_from_file_location("hosts", FILE)
hosts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hosts)

FAR = "https://far.example/thing"


def found_in(folder: Path, text: str, name: str = "sub/page.html") -> list[str]:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return hosts.loads_elsewhere(folder)


@pytest.mark.parametrize(
    "text",
    [
        f'<script src="{FAR}"></script>',
        '<script src="//far.example/thing"></script>',
        f"<SCRIPT ASYNC SRC={FAR.upper()}></SCRIPT>",
        f'<link rel="stylesheet" href="{FAR}">',
        f'<link rel="preload icon" href="{FAR}">',
        f'<img src="near.png" srcset="near.png 1x, {FAR} 2x">',
        f'<video poster="{FAR}"></video>',
        f'<iframe src="{FAR}"></iframe>',
        f'<object data="{FAR}"></object>',
        f'<svg><use xlink:href="{FAR}"/></svg>',
        f'<p style="background: url({FAR})">text</p>',
        f"<style>@font-face {{ src: url('{FAR}') }}</style>",
        f'<style>@import "{FAR}";</style>',
    ],
)
def test_whatever_a_page_loads_from_another_host_is_found(text, tmp_path):
    (line,) = found_in(tmp_path, f"<html><head></head><body>{text}</body></html>")
    assert line.startswith("sub/page.html loads ") and "far.example/thing" in line.lower()


@pytest.mark.parametrize("text", [f"@import url({FAR});", f'@import "{FAR}";', f'a {{ background: URL( "{FAR}" ) }}'])
def test_whatever_a_style_sheet_loads_from_another_host_is_found(text, tmp_path):
    assert found_in(tmp_path, text, "theme.css") == [f"theme.css loads {FAR}"]


@pytest.mark.parametrize(
    "text",
    [
        f'<a href="{FAR}">a link</a>',
        f'<link rel="canonical" href="{FAR}">',
        '<script src="../js/theme.js"></script><img src="images/a.jpg"><img src="data:image/png;base64,AA//">',
        f'<code>&lt;script src="{FAR}"&gt;</code> and {FAR}',
        '<p style="background: url(../near.png)">text</p>',
    ],
)
def test_links_and_files_of_the_site_itself_are_left_alone(text, tmp_path):
    assert found_in(tmp_path, text) == []
