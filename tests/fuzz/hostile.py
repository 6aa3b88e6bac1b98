"""Malicious checkpoints, and checkpoints of other tools: code, templates, counts."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .case import Damage
from .json_damage import write_json

MARK = "code-ran"
"""A folder beside the checkpoint that appears when code of the checkpoint runs."""

_TEMPLATES = {
    "loops 10**10 times": "{% for i in range(10**10) %}{% endfor %}",
    "loops within loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "writes 10 GB at once": "{{ 'A' * 10**10 }}",
    "writes 10 GB by and by": "{% for i in range(10**5) %}{{ 'A' * 10**5 }}{% endfor %}",
    "doubles a text": "{% set a = namespace(b='AB') %}{% for i in range(60) %}{% set a.b = a.b ~ a.b %}{% endfor %}",
    "makes a list of 10**12": "{{ range(10**12) | list | length }}",
    "raises a power": "{{ (10 ** (10 ** 9)) % 7 }}",
    "multiplies a power": "{% set n = 10 ** 9 %}{{ (n ** n) | string | length }}",
    "pads": "{{ '%10000000000d' % 1 }}",
    "pads by format": "{{ '{:>10000000000}'.format(1) }}",
    "centres": "{{ 'a' | center(10**10) }}",
    "indents": "{{ messages | tojson(indent=10**9) }}",
    "calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "raises": "{{ raise_exception('no system role') }}",
    "divides by zero": "{{ 1 // 0 }}",
    "calls what is not there": "{{ nothing.at.all() }}",
    "is no template": "{% for message in messages %}",
    "has an unknown tag": "{% generation %}{% surprise %}",
    "includes a file": "{% include '/etc/hostname' %}",
    "looks for classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "looks for globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "renders no image": "{{ messages[0].content[1].text }}",
    "renders three images": "<image><image><image>{{ messages[0].content[1].text }}",
    "renders 10**5 images": "{{ '<image>' * 10**5 }}",
    "renders 10**6 words": "<image>{{ ' good' * 10**6 }}",
    "is only white space": "  \n ",
    "is nested deep": "{{ " + "(" * 10**5 + "1" + ")" * 10**5 + " }}",
    "is a million letters": "<image>" + "a" * 10**6,
    "changes its messages": "{{ messages.append(messages) }}<image>{{ messages }}",
    "sorts itself": "{% for i in range(10**4) %}{{ range(10**4)|list|sort|join }}{% endfor %}",
}

_QUANTIZATIONS: dict[str, Any] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "bitsandbytes 8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "bitsandbytes 4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "quark": {"quant_method": "quark", "export": {}, "global_quant_config": {}},
    "torchao": {"quant_method": "torchao", "quant_type": "int8_weight_only"},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "fbgemm": {"quant_method": "fbgemm_fp8"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
    "hqq": {"quant_method": "hqq", "quant_config": {}},
    "mxfp4": {"quant_method": "mxfp4"},
    "quanto": {"quant_method": "quanto", "weights": "int8"},
    "unknown": {"quant_method": "magic"},
    "without a method": {"bits": 4},
    "list": [],
    "text": "gptq",
    "empty": {},
}

_CODE = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}


def hostile_damages(read: Callable[[str], Any]) -> list[Damage]:
    """``read``: name of a JSON file of the healthy checkpoint -> its content."""
    config = read("config.json")
    damages = [Damage(f"chat template: {kind}", partial(_template, text)) for kind, text in _TEMPLATES.items()]
    for place in (None, "text_config", "vision_config"):
        for kind, settings in _QUANTIZATIONS.items():
            label = f"config.json: {place + '.' if place else ''}quantization_config {kind}"
            damages.append(Damage(label, partial(_with, "config.json", config, place, "quantization_config", settings)))
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        damages.append(Damage(f"{name}: auto_map", partial(_code, name, read(name))))
    damages.append(Damage("pytorch_model.bin beside", partial(_pickle, ["pytorch_model.bin", "model.pth"], False)))
    damages.append(Damage("pytorch_model.bin instead", partial(_pickle, ["pytorch_model.bin"], True)))
    damages.append(Damage("model.safetensors: a pickle", partial(_pickle, ["model.safetensors"], False)))
    for kind, points in _PIN_POINTS.items():
        damages.append(Damage(f"both configs: pin points {kind}", partial(_pin_points, points, read)))
    return damages


_PIN_POINTS: dict[str, Any] = {
    "of 51,200": [[51200, 51200]],
    "of 10**12 tiles": [[128 * 10**6, 128 * 10**6]],
    "in one long row": [[128, 128 * 10**7]],
    "a million": [[128, 128]] * 10**6,
    "a million different": [[128 * a, 128 * b] for a in range(1, 1001) for b in range(1, 1001)],
    "as numbers": [128, 256],
    "as text": ["128x128"],
    "negative": [[-128, -128]],
    "of three numbers": [[128, 128, 128]],
    "of fractions": [[128.5, 128.5]],
    "as a formula": "(1x1),...,(6x6)",
    "empty": [],
    "of true": [[True, True]],
}


def _template(text: str, folder: Path, rng: random.Random) -> None:
    """In one of the places where transformers' versions keep the template; the others are emptied."""
    place = rng.choice(("chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json"))
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink()
    if place.endswith(".jinja"):
        (folder / place).write_text(text, encoding="utf-8")
        return
    settings = json.loads((folder / place).read_text(encoding="utf-8")) if (folder / place).is_file() else {}
    many = [{"name": "default", "template": text}]
    value = rng.choice((text, many)) if place == "tokenizer_config.json" else text
    write_json(folder / place, settings | {"chat_template": value})


def _with(name: str, document: Any, inside: str | None, key: str, value: Any, folder: Path, _: random.Random) -> None:
    changed = {**document, inside: {**document[inside], key: value}} if inside else {**document, key: value}
    write_json(folder / name, changed)


def _code(name: str, document: Any, folder: Path, _: random.Random) -> None:
    write_json(folder / name, {**document, "auto_map": _CODE})
    code = f"import os\nos.makedirs({str(folder.parent / MARK)!r}, exist_ok=True)\n"
    (folder / "evil.py").write_text(code + "class Evil: pass\nclass EvilConfig: pass\n", encoding="utf-8")


class RunsCode:
    """Unpickling it makes a folder."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (self.mark,)


def _pickle(names: list[str], alone: bool, folder: Path, _: random.Random) -> None:
    if alone:
        (folder / "model.safetensors").unlink()
    for name in names:
        (folder / name).write_bytes(pickle.dumps(RunsCode(str(folder.parent / MARK))))


def _pin_points(points: Any, read: Callable[[str], Any], folder: Path, _: random.Random) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        write_json(folder / name, read(name) | {"image_grid_pinpoints": points})
