"""The options of a model: one dataclass, given to commands by a decorator, handed on to ``qsit_plugin.load``."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace

import pytest
import typer
from typer.testing import CliRunner

import qsit_plugin
from qsit_plugin.cli.options import Choice, chooses_model, headline


def test_every_option_of_a_model_is_an_argument_of_load_with_the_same_default() -> None:
    load = inspect.signature(qsit_plugin.load).parameters
    for field in fields(Choice):
        assert field.default == load["name" if field.name == "model" else field.name].default


@pytest.mark.parametrize(("names", "count"), [(("device", "adapter"), 2), ((), len(fields(Choice)))])
def test_a_command_has_the_options_it_names_behind_its_own_and_without_names_all(names, count) -> None:
    found = []

    @chooses_model(*names)
    def command(choice: Choice, photo: str, loud: bool = False) -> None:
        """Of the test."""
        found.append((choice, photo, loud))

    assert list(inspect.signature(command).parameters)[:3] == ["photo", "loud", names[0] if names else "model"]
    assert len(inspect.signature(command).parameters) == 2 + count
    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["a.jpg", "--device", "cpu", "--loud"]).exit_code == 0
    assert found == [(Choice(device="cpu"), "a.jpg", True)]


def test_an_option_that_is_not_among_those_of_a_command_is_refused() -> None:
    @chooses_model("device")
    def command(choice: Choice) -> None:
        """Of the test."""

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["--model", "qsit"]).exit_code == 2


def test_the_headline_is_that_of_the_scope_whatever_the_name_of_the_model(nano, tmp_path) -> None:
    """As with an adapter of nano that was trained on people's ratings."""
    assert headline(nano).endswith("not for generated images: take --model qsit-mini")
    for scope, kind, end in (
        ("my raters", None, "scope my raters"),
        ("human ratings", None, "calibrated on human ratings"),
        ("my raters", "ratings", "calibrated on my raters"),
        (
            "synthetic distortions",
            None,
            "knows synthetic distortions only; for human-calibrated scores: --model qsit-mini",
        ),
        ("all", "mixed", "scores follow all; not for generated images: take --model qsit-mini"),
    ):
        replace(nano.profile, scope=scope, scope_kind=kind).save(tmp_path)
        model = qsit_plugin.load("qsit-nano", device="cpu", profile=str(tmp_path / "qsit.json"))
        assert headline(model).endswith(f": {end}")
