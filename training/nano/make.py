"""From a folder of photos to a qsit-nano: the stages of a recipe, one after the other.

Stages that are done are not done again, and one that was stopped is resumed; a changed recipe or another folder of
photos needs a new folder for the results.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from qsit_plugin.errors import QSiTError
from qsit_plugin.yaml_file import load_yaml

from ..synthetic.photos import find
from . import evidence, joint, language, tower
from .average import WEIGHTS, AverageStage, average

RECIPE = Path(__file__).with_name("recipe.yaml")

RENAMED = {"variety": "augmentation"}
"""Settings of older recipes, by their names of today."""


class RecipeError(QSiTError, ValueError):
    """A recipe that cannot be followed; the message says what to do."""


@dataclass(frozen=True)
class Recipe:
    """The settings of all stages; language and evidence rest where the joint stage goes on from a checkpoint."""

    tower: tower.TowerStage = tower.TowerStage()
    language: language.LanguageStage = language.LanguageStage()
    evidence: evidence.EvidenceStage = evidence.EvidenceStage()
    joint: joint.JointStage = joint.JointStage()
    average: AverageStage = AverageStage()


def read_recipe(path: Path) -> Recipe:
    """Raises RecipeError for an unknown stage or setting; a setting that is not given has its default."""
    recipe = _built(Recipe, load_yaml(path) or {}, str(path))
    if recipe.joint.checkpoint not in (None, recipe.tower.checkpoint):
        raise RecipeError(
            f"{path}: joint goes on from {recipe.joint.checkpoint}, the tower from {recipe.tower.checkpoint}; its "
            "projector would read features that it does not know: give both the same checkpoint, or joint none"
        )
    return recipe


def _built(kind: Any, given: Any, where: str) -> Any:
    """The dataclass ``kind`` from a mapping; a setting that is a dataclass itself, likewise."""
    if not isinstance(given, dict):
        raise RecipeError(f"{where}: {given!r} is no list of settings; see {RECIPE}")
    known, values = get_type_hints(kind), {}
    for name, value in ((RENAMED.get(name, name), value) for name, value in given.items()):
        if name not in known:
            raise RecipeError(f"{where}: unknown setting {name}; there are {', '.join(known)}")
        if dataclasses.is_dataclass(known[name]):
            values[name] = _built(known[name], value or {}, f"{where}, {name}")
        else:
            values[name] = float(value) if known[name] is float else value  # YAML takes 1e-3 for a text
    return kind(**values)


def make(photos: Path, out: Path, recipe: Path = RECIPE) -> Path:
    """Run the stages of a recipe; the folder of the checkpoint, in ``out``. Raises RecipeError."""
    plan = read_recipe(recipe)
    out.mkdir(parents=True, exist_ok=True)
    _check_same(out / "made-from.json", photos, plan)
    towered, spoken, started = (out / f"{name}.safetensors" for name in ("tower", "language", "start"))
    nano, averaged, other = out / "nano", out / "averaged", plan.average.other
    new = plan.joint.checkpoint is None
    start = started if new else towered
    stages: list[tuple[str, bool, Path, Callable[[], Any]]] = [
        ("tower", True, towered, lambda: tower.train(photos, towered, plan.tower)),
        ("language", new, spoken, lambda: language.train(spoken, plan.language)),
        ("evidence", new, started, lambda: evidence.train(photos, towered, spoken, started, plan.evidence)),
        ("joint", True, nano / "qsit.json", lambda: joint.train(photos, start, nano, plan.joint)),
        ("average", bool(other), averaged / WEIGHTS, lambda: average(nano, str(other), averaged, plan.average.share)),
    ]
    for name, wanted, result, run in stages:
        if wanted and result.exists():
            print(f"{name}: done before", flush=True)
        elif wanted:
            print(f"{name}:", flush=True)
            run()
    made = averaged if other else nano
    print(f"made: {made}\nnow: python -m qsit_plugin.training.nano evaluate --photos {photos} --checkpoint {made}")
    return made


def _check_same(record: Path, folder: Path, recipe: Recipe) -> None:
    """Results of another recipe or other photos are not gone on with."""
    names = "\n".join(path.name for path in find(folder))
    now = {"recipe": dataclasses.asdict(recipe), "photos": hashlib.sha256(names.encode()).hexdigest()}
    if not record.exists():
        record.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    elif json.loads(record.read_text(encoding="utf-8")) != now:
        raise RecipeError(f"{record.parent} was begun with another recipe or other photos: give another --out")
