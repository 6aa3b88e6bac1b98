"""Q-SiT First Good Enough: candidates are made one after the other until one is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from qsit_plugin.nodes.base import BAD_INPUT, CATEGORY, QSiTModel, QSiTNode, QSiTScores, schema, score_input
from qsit_plugin.nodes.candidates import IF_NONE, NAMES, chosen, next_wanted
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.lists import named, one
from qsit_plugin.nodes.pictures import pictures_of
from qsit_plugin.nodes.records import Record, fraction


class FirstGoodEnough(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["retry", "try again", "best of n", "until good", "best image"],
            node_id="QSiT_FirstGoodEnough",
            display_name="Q-SiT First Good Enough",
            category=CATEGORY,
            description="Takes the first candidate whose score reaches the threshold. Candidates after it are never "
            "generated: connect one sampler with its own seed to each.",
            is_input_list=True,
            inputs=[
                QSiTModel.Input("model", tooltip="From Load Q-SiT Model."),
                score_input(
                    "threshold",
                    default=0.6,
                    tooltip="A candidate is good enough at this score. A batch counts by the mean of its "
                    "images; the items of a list are candidates one after the other.",
                ),
                io.Combo.Input(
                    "if_none",
                    options=list(IF_NONE),
                    default=IF_NONE[0],
                    tooltip="When no candidate is good enough: take the best, stop this branch silently, or "
                    "stop it with an error.",
                ),
                io.Image.Input(NAMES[0], tooltip="The first candidate; always generated."),
                *(
                    io.Image.Input(
                        name, optional=True, lazy=True, tooltip="Generated only when none before was good enough."
                    )
                    for name in NAMES[1:]
                ),
            ],
            outputs=[
                io.Image.Output("image_out", display_name="images", tooltip="The candidate that was taken."),
                io.Float.Output("score", display_name="score", tooltip="Its score, 0 to 1."),
                io.Int.Output("tries", display_name="tries", tooltip="How many candidates were scored. Never blocked."),
                io.Boolean.Output(
                    "is_pass", display_name="is pass", tooltip="Whether it is good enough. Never blocked."
                ),
                QSiTScores.Output("scores", display_name="scores", tooltip="The records of the taken images."),
                io.String.Output("report", display_name="report", tooltip="The score of each candidate."),
            ],
        )

    @classmethod
    def check_lazy_status(
        cls, model: Sequence[Any], threshold: Sequence[float], if_none: Sequence[str], **candidates: Sequence[Any]
    ) -> list[str]:
        waiting = [name for name in NAMES if name in candidates and not _is_made(candidates[name])]
        try:
            needed = one(threshold, "threshold")
            scores = [score for score, _ in _looked_at(one(model, "model"), _in_order(candidates), needed)]
        except BAD_INPUT:
            return []  # run meets it again and reports it; an error here would end the whole prompt
        wanted = next_wanted(scores, waiting, needed)
        return [] if wanted is None else [wanted]

    @classmethod
    def run(
        cls, model: Sequence[Any], threshold: Sequence[float], if_none: Sequence[str], **candidates: Sequence[Any]
    ) -> io.NodeOutput:
        needed, otherwise = fraction(one(threshold, "threshold"), "threshold"), one(if_none, "if_none")
        made = _in_order(candidates)
        looked_at = _looked_at(one(model, "model"), made, needed)
        scores = [score for score, _ in looked_at]
        index, passed = chosen(scores, needed)
        names = list(made)
        lines = [f"{name}: {score:.3f}" for name, score in zip(names, scores, strict=False)]  # cached ones may follow
        lines.append(f"taken: {names[index]}" if passed else f"none reaches {needed:g}; the best: {names[index]}")
        text = "\n".join(lines)
        if not passed and otherwise == "error":
            raise InputError(f"none of {len(scores)} candidates reaches {needed:g}; the best: {scores[index]:.3f}")
        stop = not passed and otherwise == "stop silently"
        return cls.show(
            ExecutionBlocker(None) if stop else made[names[index]],
            scores[index],
            len(scores),
            passed,
            ExecutionBlocker(None) if stop else looked_at[index][1],
            text,
            text=text,
            images=[] if stop else cls.previews(made[names[index]]),
            records=[{"scores": scores, "taken": None if stop else index}],
        )


def _is_made(candidate: Sequence[Any]) -> bool:
    """ComfyUI gives (None,) for a lazy input that is not made."""
    return all(images is not None for images in candidate)


def _in_order(candidates: dict[str, Sequence[Any]]) -> dict[str, Any]:
    """Name -> batch of what is made. Each item of a list is a candidate of its own."""
    lists = [(name, candidates[name]) for name in NAMES if name in candidates and _is_made(candidates[name])]
    return {label: images for name, items in lists for label, images in named(items, name)}


def _looked_at(model: Any, made: dict[str, Any], threshold: float) -> list[tuple[float, list[Record]]]:
    """(mean score, records) of each candidate up to the first good enough; later ones may come from ComfyUI's cache.

    Pictures that were scored before are not scored again.
    """
    from qsit_plugin.nodes.handle import records_of

    found = []
    for name, images in made.items():
        records = records_of(model.remembered_scores(pictures_of(images, name)))
        found.append((fmean(record["score"] for record in records), records))
        if found[-1][0] >= threshold:
            break
    return found
