"""What a model is good for, in one line: on the Load node as soon as it is chosen, and again when it has run."""

from __future__ import annotations

from typing import Any

GOOD_FOR: dict[str, dict[str, str]] = {
    "en": {
        "qsit-nano": "Finds technical faults: blur, noise, compression. Does not say whether a generated picture is "
        "well made: take qsit-mini for that.",
        "qsit-mini": "Follows people's ratings, of generated pictures too (1.8 GB).",
        "qsit": "Follows people's ratings, of generated pictures too; the largest (16 GB).",
        "": "A checkpoint of your own: what its scores follow stands here when it has run.",
    },
    "zh": {
        "qsit-nano": "能发现技术缺陷：模糊、噪点、压缩。不能判断生成的图像画得好不好：请改用 qsit-mini。",
        "qsit-mini": "符合人的评分，对生成的图像也适用（1.8 GB）。",
        "qsit": "符合人的评分，对生成的图像也适用；最大的模型（16 GB）。",
        "": "您自己的检查点：运行后这里显示其分数的依据。",
    },
}
"""Language -> model -> line; "" stands for every other model."""


def good_for(name: str) -> str:
    """The line of a model that has run; empty for one whose scope says it all."""
    return GOOD_FOR["en"].get(name, "")


def for_the_page(model_list: Any) -> Any:
    """Give the input with the list of models the lines in all languages, where web/qsit.js reads them."""
    model_list.extra_dict = {"qsit_good_for": GOOD_FOR}
    return model_list
