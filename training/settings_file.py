"""Settings as classes that pydantic checks, in a YAML file of one setting a line, and NAME=VALUE over its lines."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

try:
    from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, ValidationError
    from pydantic.dataclasses import dataclass
    from pydantic.fields import FieldInfo
    from pydantic_core import to_jsonable_python
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('pydantic is not installed: pip install "qsit-plugin[train]"', name=error.name) from None

from qsit_plugin.yaml_file import load_yaml

from .errors import ConfigError

__all__ = ["AfterValidator", "BeforeValidator", "ConfigError", "Field", "parse_overrides", "read_file", "read_yaml"]
__all__ += ["settings", "to_jsonable_python"]

Kind = TypeVar("Kind")


# ---- types of settings: a description is what the error demands, a range is said in numbers ----


def _number(value: Any) -> Any:
    """``1e-5`` is a text to YAML, and pydantic takes True for 1."""
    if isinstance(value, bool):
        raise ValueError
    return float(value) if isinstance(value, str) else value


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError
    return values


Text = Annotated[str, Field(min_length=1, description="it must be a text")]
Flag = Annotated[bool, Strict(), Field(description="it must be true or false")]
Whole = Annotated[int, BeforeValidator(_number), Field(description="it must be a whole number")]
Number = Annotated[float, BeforeValidator(_number), Field(description="it must be a number")]
Count = Annotated[Whole, Field(ge=1)]
Share = Annotated[Number, Field(ge=0, le=1)]
EachOnce = AfterValidator(_each_once)


# ---- classes of settings ----


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(kind: type[Kind]) -> type[Kind]:
    """Make a frozen dataclass of a class of settings; wrong values raise ConfigError with all that is wrong.

    ``kind.example``: a line of its YAML file. ``kind.removed``, if any: what to say of settings ("margin") and values
    ("mode: joint") that it once had.
    """
    checked: Any = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(kind)
    check = checked.__init__
    required = {field.name for field in fields(checked) if field.default is MISSING}

    @functools.wraps(check)
    def __init__(self: Any, /, **values: Any) -> None:
        given = {name: value for name, value in values.items() if value is not None or name not in required}
        try:
            check(self, **given)
        except ValidationError as error:
            raise ConfigError(_report(checked, given, error)) from None

    checked.__init__ = __init__
    return checked


def _report(kind: Any, values: Mapping[str, Any], error: ValidationError) -> str:
    """Everything that is wrong, as one line."""
    hints, removed = get_type_hints(kind, include_extras=True), getattr(kind, "removed", {})
    known, said, missing = [field.name for field in fields(kind)], [], []
    for fault in error.errors():
        cause, name = fault.get("ctx", {}).get("error"), str(next(iter(fault["loc"]), ""))
        gone = removed.get(name) or removed.get(f"{name}: {values.get(name)}")
        if gone or isinstance(cause, ConfigError):  # a ConfigError of a check has words of its own
            said.append(gone or str(cause))
        elif fault["type"] == "missing" and name not in values:
            missing.append(name)
        elif name in known:
            said.append(f"{name} is {values[name]!r}: {_demand(hints[name], fault)}")
        else:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f" (did you mean {close[0]}?)" if close else ""
            said.append(f"unknown setting {name!r}{guess}; there are {', '.join(known)}")
    if missing:
        said.append(f"it lacks {', '.join(missing)}: add them, as in '{kind.example}'")
    return "; ".join(dict.fromkeys(said))


def _demand(hint: Any, fault: Any) -> str:
    """What a setting of this type must be, as the end of a sentence."""
    if NoneType in get_args(hint):
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return f"give one of {', '.join(get_args(hint))}"
    marks = [mark for mark in hint.__metadata__ if isinstance(mark, FieldInfo)]
    words = [mark.description for mark in marks if mark.description][-1]
    limits = {name: limit for mark in marks for each in mark.metadata for name, limit in asdict(each).items()}
    if len(fault["loc"]) > 1 or fault["type"] not in ("greater_than", "greater_than_equal", "less_than_equal"):
        return words
    low, high = limits.get("ge", limits.get("gt")), limits.get("le")
    if fault["input"] == limits.get("gt"):
        return f"it must be above {low:g}"
    return f"{words} from {low:g} up" if high is None else f"it must be from {low:g} to {high:g}"


# ---- the file ----


def read_file(kind: type[Kind], path: Path, overrides: Sequence[str] = (), absent: str = "no such file") -> Kind:
    """The settings of a YAML file; ``overrides``: ``"epochs=5"``, each over the file's own line.

    ``absent``: what to say where there is no file. Raises ConfigError for a missing or malformed file, an unknown or
    missing setting, a wrong value; ModuleNotFoundError where pyyaml is missing.
    """
    example: str = kind.example  # type: ignore[attr-defined]
    content = read_yaml(path, example, absent) | parse_overrides(overrides, example.replace(": ", "="))
    try:
        return kind(**{str(name): value for name, value in content.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_yaml(path: Path, example: str, absent: str = "no such file") -> dict[Any, Any]:
    """A YAML file of one setting a line.

    ``example`` of such a line, and ``absent``, what to say of a file that is not there, stand in the messages. Raises
    ConfigError for anything else than such a file; ModuleNotFoundError where pyyaml is missing.
    """
    try:
        content = load_yaml(path)
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: {absent}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold one setting a line, as in '{example}'")
    return content


def parse_overrides(overrides: Sequence[str], example: str) -> dict[str, Any]:
    """``NAME=VALUE`` of the command line, values as in YAML. Raises ConfigError for anything else."""
    import yaml

    found = {}
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"{override!r} is no setting: write NAME=VALUE, as in {example}")
        try:
            found[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ConfigError(
                f"{override!r}: {value!r} is not valid YAML; write lists as [a, b], shares as {{a: 0.3, b: 0.7}}, and "
                "quotes around the whole setting"
            ) from None
    return found
