"""Q-SiT Save with Score: files that carry their score in name and metadata, and a table of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, QSiTScores, schema, score_input
from qsit_plugin.nodes.encoding import ENDINGS, check_side, encoded
from qsit_plugin.nodes.files import append_rows, check_prefix, check_table, row, state_of, table_file, write_new
from qsit_plugin.nodes.marks import filled
from qsit_plugin.nodes.pictures import pictures_of
from qsit_plugin.nodes.records import Record, fraction, values

FORMATS = list(ENDINGS)
QUALITY = 95


class SaveWithScore(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["save image", "export image", "rating", "filename score"],
            node_id="QSiT_SaveWithScore",
            display_name="Q-SiT Save with Score",
            category=CATEGORY,
            description="Saves images with the score in name and metadata, and keeps a table.",
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
                score_input(
                    "min_score",
                    default=0.0,
                    tooltip="Only images with this score or a higher one are saved.",
                ),
                io.String.Input(
                    "csv_file",
                    default="qsit/scores.csv",
                    tooltip="Each saved image gets a row in this table below the output folder. Empty: no table.",
                ),
                # Optional, so that graphs queued over the API from before they were there still run.
                io.Combo.Input(
                    "format",
                    options=FORMATS,
                    default=FORMATS[0],
                    optional=True,
                    tooltip="PNG loses nothing. WebP and JPEG carry the workflow too; JPEG only up to 64 kB of it.",
                ),
                io.Int.Input(
                    "quality",
                    default=QUALITY,
                    min=1,
                    max=100,
                    optional=True,
                    tooltip="Of WebP and JPEG. 100 makes WebP lossless. Scores are those of the images before it.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def run(
        cls,
        images: Any,
        scores: Any,
        filename_prefix: str,
        min_score: float,
        csv_file: str,
        format: str = FORMATS[0],
        quality: int = QUALITY,
    ) -> io.NodeOutput:
        pictures = pictures_of(images)
        numbers = values(scores, len(pictures))
        fraction(min_score, "min_score")
        output = folder_paths.get_output_directory()
        table = table_file(output, csv_file) if csv_file.strip() else None
        name, unknown = filled(filename_prefix, *cls.workflow(), datetime.now())
        kept = [i for i, number in enumerate(numbers) if number >= min_score]
        names = {i: _scored(name, i, scores[i]) for i in kept}
        for i in kept:  # everything is checked before the first image is saved
            check_prefix(output, names[i])
            check_side(pictures[i], format)
        if table is not None:
            check_table(table)
        saved: list[dict[str, str]] = []
        notes = dict.fromkeys(f"no node or widget for {mark}: it stays in the name" for mark in unknown)

        def rows() -> Iterator[dict[str, Any]]:
            for i in kept:
                content, left_out = encoded(pictures[i], format, quality, cls.texts(scores[i]))
                notes.update(
                    {f"{key} left out: a JPEG holds 64 kB of metadata; PNG and WebP hold all": None for key in left_out}
                )
                folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
                    names[i], output, *pictures[i].size
                )
                file = f"{stem}_{counter:05}_.{ENDINGS[format]}"
                write_new(Path(folder, file), content, f"{len(saved)} of {len(kept)} images are saved")
                saved.append({"filename": file, "subfolder": subfolder, "type": "output"})
                yield row(Path(subfolder, file).as_posix(), scores[i]) | state_of(Path(folder, file))

        records = list(rows()) if table is None else list(append_rows(table, rows()))
        text = "\n".join([f"{len(saved)} of {len(pictures)} images saved", *notes])
        return cls.show(text=text, records=records, images=saved)

    @classmethod
    def workflow(cls) -> tuple[dict[str, Any], dict[str, Any]]:
        """The queued graph in API form, and the page's form of it; empty where there is none."""
        return cls.hidden.prompt or {}, (cls.hidden.extra_pnginfo or {}).get("workflow") or {}

    @classmethod
    def texts(cls, record: Record) -> dict[str, str]:
        """What ComfyUI's own savers write, and the score under ``qsit``; nothing with --disable-metadata."""
        from comfy.cli_args import args

        if args.disable_metadata:
            return {}
        prompt = {} if cls.hidden.prompt is None else {"prompt": cls.hidden.prompt}
        content = prompt | (cls.hidden.extra_pnginfo or {}) | {"qsit": record}
        return {key: json.dumps(value) for key, value in content.items()}


def _scored(name: str, place: int, record: Record) -> str:
    """The name of one image: its own marks filled in."""
    marks = {"%score%": f"{record['score']:.3f}", "%level%": record["level"], "%batch_num%": str(place)}
    for mark, value in marks.items():
        name = name.replace(mark, value)
    return name
