"""One command from a folder of photos to a qsit-nano: the stages of a recipe, then its figures.

    python -m qsit_plugin.training.nano.make --photos PHOTOS --out OUT [--recipe recipe.yaml]

Stages that are done are not done again, and one that was stopped goes on; a changed recipe or another folder of photos
needs a new OUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsit_plugin.errors import QSiTError

from ..synthetic import photos
from . import evidence, joint, language, tower
from .average import WEIGHTS, AverageStage, average

RECIPE = Path(__file__).with_name("recipe.yaml")


class RecipeError(QSiTError, ValueError):
    """A recipe that cannot be followed; the message says what to do."""


@dataclass(frozen=True)
class Recipe:
    """The settings of all stages; language and evidence rest where the joint stage goes on from a checkpoint."""

    tower: tower.TowerStage
    language: language.LanguageStage
    evidence: evidence.EvidenceStage
    joint: joint.JointStage
    average: AverageStage


def read_recipe(path: str | Path) -> Recipe:
    """Raises RecipeError for an unknown stage or setting; a setting that is not given has its default."""
    import yaml

    content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    kinds = {
        "tower": tower.TowerStage,
        "language": language.LanguageStage,
        "evidence": evidence.EvidenceStage,
        "joint": joint.JointStage,
        "average": AverageStage,
    }
    _refuse_unknown(path, "stage", content, kinds)
    recipe = Recipe(**{name: _stage(path, kind, content.get(name) or {}) for name, kind in kinds.items()})
    if recipe.joint.checkpoint != recipe.tower.checkpoint and recipe.joint.checkpoint is not None:
        raise RecipeError(
            f"{path}: joint goes on from {recipe.joint.checkpoint}, the tower from {recipe.tower.checkpoint}; its "
            "projector would read features that it does not know: give both the same checkpoint, or joint none"
        )
    return recipe


def _stage(path: str | Path, kind: type, settings: dict[str, Any]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    _refuse_unknown(path, "setting", settings, fields)
    # YAML takes 1e-3 for a text
    numbers = {name: float(value) for name, value in settings.items() if str(fields[name].type) == "float"}
    return kind(**settings | numbers)


def _refuse_unknown(path: str | Path, what: str, given: Any, known: dict[str, Any]) -> None:
    if not isinstance(given, dict):
        raise RecipeError(f"{path}: {given!r} is no list of settings; see {RECIPE}")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise RecipeError(f"{path}: unknown {what} {', '.join(unknown)}; there are {', '.join(known)}")


def make(folder: str | Path, out: str | Path, recipe: Recipe) -> Path:
    """Run the stages; the folder of the checkpoint."""
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    _check_same(place / "made-from.json", folder, recipe)
    towered, spoken, started = (place / f"{name}.safetensors" for name in ("tower", "language", "start"))
    nano, averaged = place / "nano", place / "averaged"
    stages: list[tuple[str, Path, Callable[[], Any]]] = [
        ("tower", towered, lambda: tower.train(folder, towered, recipe.tower)),
    ]
    start = towered
    if recipe.joint.checkpoint is None:
        start = started
        stages += [
            ("language", spoken, lambda: language.train(spoken, recipe.language)),
            ("evidence", started, lambda: evidence.train(folder, towered, spoken, started, recipe.evidence)),
        ]
    stages.append(("joint", nano / "qsit.json", lambda: joint.train(folder, start, nano, recipe.joint)))
    other, share = recipe.average.other, recipe.average.share
    if other is not None:
        stages.append(("average", averaged / WEIGHTS, lambda: average(nano, other, share, averaged)))
    for name, result, run in stages:
        if result.exists():
            print(f"{name}: done before", flush=True)
        else:
            print(f"{name}:", flush=True)
            run()
    return nano if other is None else averaged


def _check_same(record: Path, folder: str | Path, recipe: Recipe) -> None:
    """Results of another recipe or other photos are not gone on with."""
    names = "\n".join(path.name for path in photos.find(folder))
    now = {"recipe": dataclasses.asdict(recipe), "photos": hashlib.sha256(names.encode()).hexdigest()}
    if not record.exists():
        record.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    elif json.loads(record.read_text(encoding="utf-8")) != now:
        raise RecipeError(f"{record.parent} was begun with another recipe or other photos: give another --out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of clean photos, of 512 pixels or more")
    parser.add_argument("--out", required=True, help="folder for the results of the stages, and OUT/nano")
    parser.add_argument("--recipe", default=str(RECIPE))
    args = parser.parse_args()
    try:
        nano = make(args.photos, args.out, read_recipe(args.recipe))
    except (RecipeError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from None
    print(f"made: {nano}\nnow: python -m qsit_plugin.training.nano.evaluate --photos {args.photos} --checkpoint {nano}")


if __name__ == "__main__":
    main()
