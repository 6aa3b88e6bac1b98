"""Q-SiT Score Folder: scores of the images that are already on disk, as a table that can be continued."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import folder_paths
from comfy_api.latest import io

import qsit_plugin
from qsit_plugin.nodes.base import BAD_INPUT, CATEGORY, QSiTModel, QSiTNode, schema, score_input
from qsit_plugin.nodes.beside import KINDS, NONE, check_kind, companions, write_score
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.files import Found, below, image_files, state_of, table_file
from qsit_plugin.nodes.folder_rows import NOTHING, TXT, WORDS, FolderTable, check_words
from qsit_plugin.nodes.parting import ACTIONS, LEAVE, MOVE, UNDO, check_action, move_back, part
from qsit_plugin.nodes.records import fraction

DEMO = "demo photos"
"""The folder of the package's own photos, so that an example shows what it promises on a fresh ComfyUI."""
SOURCES = ("input", "output", DEMO)
INTO = "qsit/sorted"


class ScoreFolder(QSiTNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["curate", "data set", "batch score", "rating", "filter files", "iqa"],
            node_id="QSiT_ScoreFolder",
            display_name="Q-SiT Score Folder",
            category=CATEGORY,
            description="Scores every image file of a folder into a csv table. Started again, it goes on where it "
            "stopped. On request it describes them, writes sidecars, and copies or moves the passed and the failed.",
            is_output_node=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                io.Combo.Input(
                    "source",
                    options=list(SOURCES),
                    default="output",
                    tooltip=f"Which of ComfyUI's folders it lies in. {DEMO}: two that come with the pack.",
                ),
                io.String.Input("folder", default="", tooltip="A folder inside it; empty takes the whole."),
                io.Boolean.Input("recursive", default=True, tooltip="Whether folders inside are searched too."),
                io.String.Input(
                    "csv_file",
                    default="qsit/folder.csv",
                    tooltip="The table, below the output folder. Files that stand in it unchanged are not scored "
                    "again.",
                ),
                # Optional and last: workflows from before they were there keep the values of the others.
                io.Combo.Input(
                    "explain",
                    options=list(WORDS),
                    default=NOTHING,
                    optional=True,
                    tooltip="Describe every image too: as photo.txt beside photo.png, or in the table. A .txt that is "
                    "there, such as a caption, is never written over.",
                ),
                io.Combo.Input(
                    "sidecars",
                    options=list(KINDS),
                    default=NONE,
                    optional=True,
                    tooltip="A file with the score beside every image: photo.png.json, or photo.png.xmp with stars for "
                    "photo tools. One that is there is never written over.",
                ),
                io.Combo.Input(
                    "passed_and_failed",
                    options=list(ACTIONS),
                    default=LEAVE,
                    optional=True,
                    tooltip="Copy or move the images into passed and failed below the output folder, with their .txt "
                    "and sidecars. Only images of the output folder can be moved; a move can be undone here.",
                ),
                score_input(
                    "threshold",
                    default=0.5,
                    optional=True,
                    tooltip="An image passes when its score is this high or higher.",
                ),
                io.String.Input(
                    "into",
                    default=INTO,
                    optional=True,
                    tooltip="The folder below the output folder where passed, failed and the manifest lie. Images in "
                    "it are not scored.",
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
    def fingerprint_inputs(
        cls,
        source: str,
        folder: str,
        recursive: bool,
        csv_file: str,
        passed_and_failed: str = LEAVE,
        into: str = INTO,
        **inputs: Any,
    ) -> Any:
        """Runs again when an image was added, removed or changed, or the table, a sidecar or a copy is gone."""
        try:
            files = _found(source, folder, recursive, into).files
            there = table_file(folder_paths.get_output_directory(), csv_file).exists()
            sorted_before = [] if passed_and_failed == LEAVE else sorted(map(str, _place(into).rglob("*")))
        except BAD_INPUT:
            return super().fingerprint_inputs()
        seen = [(str(path), *state_of(path).values(), len(companions(path))) for path in files]
        return [super().fingerprint_inputs(), there, seen, sorted_before]

    @classmethod
    def run(
        cls,
        model: Any,
        source: str,
        folder: str,
        recursive: bool,
        csv_file: str,
        explain: str = NOTHING,
        sidecars: str = NONE,
        passed_and_failed: str = LEAVE,
        threshold: float = 0.5,
        into: str = INTO,
    ) -> io.NodeOutput:
        check_words(explain)  # everything is checked before the first image is scored
        check_kind(sidecars)
        check_action(passed_and_failed, source)
        if source == DEMO and (explain == TXT or sidecars != NONE):
            raise InputError(f"choose another source: nothing is written beside the {DEMO}, which belong to the pack")
        fraction(threshold, "threshold")
        root, output = _root(source), _root("output")
        place = _place(into)
        table = table_file(output, csv_file)
        found = _found(source, folder, recursive, into)
        if passed_and_failed == UNDO:
            text = "\n".join(move_back(place, output, mm.throw_exception_if_processing_interrupted))
            return cls.show(str(table), 0, 0, text, text=text, records=[{"scored": 0, "failed": 0, "csv": str(table)}])
        if not found.files and not (passed_and_failed == MOVE and place.is_dir()):  # all of them were moved before
            others = f": {found.others_left_out}" if found.others_left_out else ""
            raise InputError(f"no images in {source}/{folder}{others}")
        about = {"model": model.model.name, "fingerprint": model.model.fingerprint}
        rated = FolderTable(table, about, {path: path.relative_to(root).as_posix() for path in found.files})
        lines = rated.score(model)
        if found.links_left_out:
            lines.append(f"{found.links_left_out} links left out: they lead out of the {source} folder, or nowhere")
        lines += [found.others_left_out] if found.others_left_out else []
        lines += rated.explain(model, explain) if explain != NOTHING else []
        rows = rated.rows()
        if sidecars != NONE:
            written = sum(write_score(path, row, sidecars) for path, row in rows.items())
            lines.append(f"{written} {sidecars} files written, {len(rows) - written} were there")
        if passed_and_failed != LEAVE:
            images = [(path, float(row["score"]) >= threshold) for path, row in rows.items()]
            lines += part(images, root, place, passed_and_failed, mm.throw_exception_if_processing_interrupted)
        text = "\n".join(lines)
        records = [{"scored": rated.n_scored, "failed": len(rated.failures), "csv": str(table)}]
        return cls.show(str(table), rated.n_scored, len(rated.failures), text, text=text, records=records)


def _found(source: str, folder: str, recursive: bool, into: str) -> Found:
    """The images of a folder, without those that were sorted before."""
    root, place = _root(source), _place(into)
    found = image_files(root, below(root, folder, "folder"), recursive)
    return replace(found, files=[path for path in found.files if not path.is_relative_to(place)])


def _place(into: str) -> Path:
    """Where passed/ and failed/ lie. Raises InputError for the output folder itself, and for one outside."""
    output = _root("output")
    place = below(output, into, "into")
    if place == output:
        raise InputError("into must name a folder below output/, such as qsit/sorted")
    return place


def _root(source: str) -> Path:
    if source == DEMO:
        return Path(qsit_plugin.__file__).resolve().parent / "demo"
    directory = folder_paths.get_input_directory() if source == "input" else folder_paths.get_output_directory()
    return Path(directory).resolve()
