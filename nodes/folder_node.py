"""Q-SiT Score Folder: scores of the images that are already on disk, as a table that can be continued."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from qsit_plugin.images.reading import ImageError
from qsit_plugin.nodes.base import BAD_INPUT, CATEGORY, QSiTModel, QSiTNode, schema
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.files import (
    COLUMNS,
    append_rows,
    below,
    columns_of,
    image_files,
    rewrite,
    row,
    rows_in,
    state_of,
    table_file,
)

SOURCES = ("input", "output")


class ScoreFolder(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["curate", "data set", "batch score", "rating", "filter files", "iqa"],
            node_id="QSiT_ScoreFolder",
            display_name="Q-SiT Score Folder",
            category=CATEGORY,
            description="Scores every image file of a folder into a csv table. Started again, it goes on where it "
            "stopped.",
            is_output_node=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                io.Combo.Input(
                    "source", options=list(SOURCES), default="output", tooltip="Which of ComfyUI's folders it lies in."
                ),
                io.String.Input("folder", default="", tooltip="A folder inside it; empty takes the whole."),
                io.Boolean.Input("recursive", default=True, tooltip="Whether folders inside are searched too."),
                io.String.Input(
                    "csv_file",
                    default="qsit/folder.csv",
                    tooltip="The table, below the output folder. Files that stand in it unchanged are not scored "
                    "again.",
                ),
            ],
            outputs=[
                io.String.Output("csv_path", display_name="csv path", tooltip="Where the table lies."),
                io.Int.Output("n_scored", display_name="scored count", tooltip="How many files were scored now."),
                io.Int.Output("n_failed", display_name="failed count", tooltip="How many files cannot be read."),
                io.String.Output("report", display_name="report", tooltip="The counts, and what cannot be read."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, source: str, folder: str, recursive: bool, csv_file: str, **inputs: Any) -> Any:
        """Runs again when a file was added, removed or changed, or the table is gone."""
        try:
            files = image_files(_root(source), below(_root(source), folder, "folder"), recursive).files
            there = table_file(folder_paths.get_output_directory(), csv_file).exists()
        except BAD_INPUT:
            return super().fingerprint_inputs()
        seen = [(str(path), *state_of(path).values()) for path in files]
        return [super().fingerprint_inputs(), there, seen]

    @classmethod
    def run(cls, model: Any, source: str, folder: str, recursive: bool, csv_file: str) -> io.NodeOutput:
        root = _root(source)
        found = image_files(root, below(root, folder, "folder"), recursive)
        files = found.files
        if not files:
            raise InputError(f"no images in {source}/{folder}")
        table = table_file(folder_paths.get_output_directory(), csv_file)
        about = {"model": model.model.name, "fingerprint": model.model.fingerprint}
        names = {path: path.relative_to(root).as_posix() for path in files}
        states = {path: state_of(path) for path in files}
        there = rows_in(table)
        done = {
            (r["path"], r.get("size"), r.get("mtime_ns"))
            for r in there
            if not r["error"] and about.items() <= r.items()
        }
        todo = [path for path in files if (names[path], *map(str, states[path].values())) not in done]
        again = {names[path] for path in todo}
        left = [r for r in there if r["path"] not in again or not about.items() <= r.items()]
        scored_before = sum(not r["error"] for r in there) - sum(not r["error"] for r in left)
        # One row a file and model: those that are scored again are taken out first.
        if len(left) < len(there) or (table.exists() and columns_of(table) != COLUMNS):
            rewrite(table, left)
        failures: list[str] = []

        def rows() -> Iterator[dict[str, Any]]:
            for path, score in zip(todo, model.file_scores(todo), strict=True):
                if isinstance(score, ImageError):
                    failures.append(f"{names[path]}: {score.reason}")
                    yield {"path": names[path], **about, "error": score.reason, **states[path]}
                else:
                    yield row(names[path], score.to_dict()) | states[path]

        for _ in append_rows(table, rows()):
            pass
        n_scored = len(todo) - len(failures)
        lines = [f"{n_scored} scored, {len(failures)} failed, {len(files) - len(todo)} were in the table", *failures]
        if scored_before:
            lines.insert(
                1,
                f"{scored_before} of them scored again: the file changed, or its row did not say of which state it is",
            )
        if found.links_left_out:
            lines.append(f"{found.links_left_out} links left out: they lead out of the {source} folder, or nowhere")
        text = "\n".join(lines)
        records = [{"scored": n_scored, "failed": len(failures), "csv": str(table)}]
        return cls.show(str(table), n_scored, len(failures), text, text=text, records=records)


def _root(source: str) -> Path:
    directory = folder_paths.get_input_directory() if source == "input" else folder_paths.get_output_directory()
    return Path(directory).resolve()
