"""The archive of ComfyUI's registry: the files that git knows, without what .comfyignore names."""

from tests.nodes import live
from tests.nodes.hosts import CHECKOUT

IGNORED = [
    line
    for line in (CHECKOUT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def test_only_folders_at_the_root_are_left_out_so_the_help_pages_in_web_docs_stay():
    assert IGNORED and all(line.startswith("/") and (CHECKOUT / line[1:]).is_dir() for line in IGNORED)


def test_nothing_that_comfyui_reads_is_left_out():
    assert not {line.strip("/").split("/")[0] for line in IGNORED} & {*live.PARTS, "build_backend"}
