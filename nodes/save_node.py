"""Q-SiT Save with Score: PNG files that carry their score in name and metadata, and a table of all of them."""

from __future__ import annotations

import json
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io
from PIL.PngImagePlugin import PngInfo

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores
from qsit_plugin.nodes.files import append_rows, check_table, row, table_file
from qsit_plugin.nodes.marks import filled
from qsit_plugin.nodes.pictures import pictures_of
from qsit_plugin.nodes.records import Record, fraction, values


class SaveWithScore(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QSiT_SaveWithScore",
            display_name="Q-SiT Save with Score",
            category=CATEGORY,
            description="Saves images as PNG with the score in name and metadata, and keeps a table.",
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The images that were scored."),
                QSiTScores.Input("scores", tooltip="The output scores of Q-SiT Score for these images."),
                io.String.Input(
                    "filename_prefix",
                    default="qsit/%level%_%score%",
                    tooltip="Below the output folder. %score% and %level% are filled in, so %level%/ sorts into "
                    "folders. Marks of ComfyUI's Save Image work too: %date:yyyy-MM-dd%, %KSampler.seed%, %year%.",
                ),
                io.Float.Input(
                    "min_score",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Only images with this score or a higher one are saved.",
                ),
                io.String.Input(
                    "csv_file",
                    default="qsit/scores.csv",
                    tooltip="Each saved image gets a row in this table below the output folder. Empty: no table.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def run(cls, images: Any, scores: Any, filename_prefix: str, min_score: float, csv_file: str) -> io.NodeOutput:
        pictures = pictures_of(images)
        numbers = values(scores, len(pictures))
        fraction(min_score, "min_score")
        output = folder_paths.get_output_directory()
        table = table_file(output, csv_file) if csv_file.strip() else None
        if table is not None:
            check_table(table)  # before an image is saved
        name, unknown = filled(filename_prefix, *cls.workflow(), datetime.now())
        saved, rows = [], []
        for place, (picture, number, record) in enumerate(zip(pictures, numbers, scores, strict=True)):
            if number < min_score:
                continue
            own = {"%score%": f"{number:.3f}", "%level%": record["level"], "%batch_num%": str(place)}
            scored = reduce(lambda text, mark: text.replace(mark, own[mark]), own, name)
            folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(scored, output, *picture.size)
            file = f"{stem}_{counter:05}_.png"
            picture.save(Path(folder, file), pnginfo=cls.metadata(record), compress_level=4)
            saved.append({"filename": file, "subfolder": subfolder, "type": "output"})
            rows.append(row(Path(subfolder, file).as_posix(), record))
        if table is not None:
            for _ in append_rows(table, rows):
                pass
        text = f"{len(saved)} of {len(pictures)} images saved"
        text += "".join(f"\nno node or widget for {mark}: it stays in the name" for mark in unknown)
        return cls.show(text=text, records=rows, images=saved)

    @classmethod
    def workflow(cls) -> tuple[dict[str, Any], dict[str, Any]]:
        """The queued graph in API form, and the page's form of it; empty where there is none."""
        return cls.hidden.prompt or {}, (cls.hidden.extra_pnginfo or {}).get("workflow") or {}

    @classmethod
    def metadata(cls, record: Record) -> PngInfo | None:
        """What ComfyUI's own saver writes, and the score under ``qsit``; nothing with --disable-metadata."""
        from comfy.cli_args import args

        if args.disable_metadata:
            return None
        info = PngInfo()
        if cls.hidden.prompt is not None:
            info.add_text("prompt", json.dumps(cls.hidden.prompt))
        for key, value in (cls.hidden.extra_pnginfo or {}).items():
            info.add_text(key, json.dumps(value))
        info.add_text("qsit", json.dumps(record))
        return info
