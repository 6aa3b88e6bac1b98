"""How qsit-nano is made and measured, one command each: python -m qsit_plugin.training.nano COMMAND ...

What the options name that are no settings of a stage:

"--photos": folder of clean photos, of 512 pixels or more; one in eight is held out
"--recipe": file with the settings of all stages
"--tower", "--language", "--teacher": the results of these commands (.safetensors)
"--start": the result of evidence; that of tower, where a checkpoint is given; for teacher, one of its own
"--checkpoint": qsit-nano, or the folder of a checkpoint
"--folder": a checkpoint folder to write, too: a base for qsit train
"--json", "--figures": file for the figures of evaluate, which publish reads
"--rated", "--unseen": folders of BIQ2021 and LIVE-C, with ratings.csv
"--cache": folder for the vectors of a network
"--thumbnails": file of thumbnails that show near twins; made if missing
"--out": file or folder to write
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from qsit_plugin.errors import QSiTError

from . import average, evaluate, evidence, joint, language, make, publish, tower
from .human import imitation, measure, people, readout, teacher

COMMANDS: dict[str, Callable[..., Any]] = {
    "make": make.make,
    "tower": tower.train,
    "language": language.train,
    "evidence": evidence.train,
    "joint": joint.train,
    "average": average.average,
    "evaluate": evaluate.measure,
    "publish": publish.publish,
    "teacher": teacher.train,
    "imitation": imitation.train,
    "human": people.train,
    "readout": readout.measure,
    "measure": measure.measure,
}
"""Every parameter of the function, and every setting of its stage, is an option."""


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """An option for every parameter of the function and every setting of its stage."""
    hints = get_type_hints(function)
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    if stage := hints.get("stage"):
        hints |= get_type_hints(stage)
        del defaults["stage"]
        defaults |= {field.name: field.default for field in dataclasses.fields(stage)}
    for name, default in defaults.items():
        option, required = f"--{name.replace('_', '-')}", default is inspect.Parameter.empty
        if hints[name] is bool:
            parser.add_argument(option, action="store_true")
        else:
            kind = next(iter(get_args(hints[name])), hints[name])  # of "Path | None" the Path
            text = None if required else f"default: {default}"
            parser.add_argument(option, type=kind, required=required, default=default, help=text)


def main() -> None:
    form: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m qsit_plugin.training.nano", description=__doc__, **form)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, function in COMMANDS.items():
        text = str(sys.modules[function.__module__].__doc__)
        sub = commands.add_parser(command, help=text.split("\n")[0], description=text, epilog=__doc__, **form)
        add_options(sub, function)
    given = vars(parser.parse_args())
    function = COMMANDS[given.pop("command")]
    if stage := get_type_hints(function).get("stage"):
        given["stage"] = stage(**{field.name: given.pop(field.name) for field in dataclasses.fields(stage)})
    try:
        function(**given)
    except (QSiTError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
