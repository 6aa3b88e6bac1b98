"""``qsit weights``: list, verify, download, convert and export checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsit_plugin.protocol import LEVELS

from . import options
from .failures import SOME_FAILED, WRONG_USAGE, ending, note, stop

if TYPE_CHECKING:
    from qsit_plugin.checkpoint.verdict import Verdict

app = typer.Typer(no_args_is_help=True, help="List, verify, download, convert and export checkpoints.")

Name = Annotated[str, typer.Argument(help="qsit-nano, qsit-mini, qsit, a checkpoint folder, or a Hub id owner/name.")]


@app.command("list")
def list_() -> None:
    """List the checkpoints that have a name, and where they lie on this machine. Asks no network."""
    from qsit_plugin.weights import ENTRIES, status

    for name in ENTRIES:
        entry = status(name)
        size = "?" if entry.size is None else size_text(entry.size)
        cure = f"qsit weights download {name}" if entry.repo else "reinstall qsit-plugin"
        place = str(entry.folder) if entry.folder else f"not here: {cure}"
        typer.echo(f"{name:<10}  {size:>8}  {entry.description}\n{'':<22}{place}")


def size_text(count: int) -> str:
    """``"9.4 MB"``, ``"1.8 GB"``: decimal units, as download pages give them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@app.command()
def download(name: Name, revision: options.Revision = None) -> None:
    """Fetch a checkpoint, or its newest version, into the Hub's cache; print its folder."""
    from qsit_plugin.weights import ENTRIES, resolve

    entry = ENTRIES.get(name)
    if entry is not None and entry.repo is None:
        note(f"{name} comes with the package: nothing to download")
    typer.echo(str(resolve(name, revision=revision, refresh=True)))


@app.command()
@options.chooses_model("engine", "device", "dtype", "revision", "adapter", "profile")
def verify(
    choice: options.Choice,
    name: Name,
    image: Annotated[
        str | None, typer.Option(metavar="FILE", help="The golden picture, where it does not come with the checkpoint.")
    ] = None,
    golden: Annotated[
        str | None, typer.Option(metavar="FILE", help="Golden values to compare with instead of the checkpoint's own.")
    ] = None,
) -> None:
    """Compare a checkpoint's level logits and score with known ones: pass, drift or broken.

    The exit status is 0 for pass, else 1. pass: the scores differ by at most 0.005; drift: by at most 0.05.
    """
    from qsit_plugin.checkpoint.verdict import verdicts, with_image
    from qsit_plugin.images.reading import ImageError
    from qsit_plugin.weights import resolve
    from qsit_plugin.weights.golden import goldens, read_goldens

    folder = resolve(name, revision=choice.revision)
    known = goldens(folder, name) if golden is None else read_goldens(golden)
    if not known:
        stop(f"no golden values are known for {name}: give --golden FILE and --image FILE", WRONG_USAGE)
    pairs = with_image(known, None if image is None else Path(image))
    if not pairs:
        stop(f"the golden picture does not come with {name}: give --image FILE ({known[0].note})", WRONG_USAGE)
    model = replace(choice, model=name).open(check_golden=False)
    with ending(SOME_FAILED, ImageError):
        results = list(verdicts(model, pairs))
    for verdict in results:
        typer.echo(verdict_text(verdict))
    if any(verdict.word != "pass" for verdict in results):
        raise typer.Exit(SOME_FAILED)


def verdict_text(verdict: Verdict) -> str:
    """A small table: golden values, values here, their difference; and the verdict below."""
    stored = (*verdict.golden.logits, verdict.golden.score)
    here = (*verdict.logits, verdict.score)
    gap = tuple(b - a for a, b in zip(stored, here, strict=True))
    lines = [verdict.golden.note] if verdict.golden.note else []
    lines.append(" " * 12 + "".join(f"{column:>11}" for column in (*LEVELS, "score")))
    for title, row in (("golden", stored), ("here", here), ("difference", gap)):
        lines.append(f"{title:<12}" + "".join(f"{value:>11.4f}" for value in row))
    return "\n".join([*lines, f"verdict: {verdict.word}"])


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Folder of a LLaVA-NeXT style Q-SiT checkpoint.")],
    target: Annotated[str, typer.Argument(help="Folder to write: a new or an empty one.")],
    profile: options.Profile = None,
) -> None:
    """Turn a LLaVA-NeXT style Q-SiT checkpoint into the Hugging Face layout; print the new folder.

    The profile is stored as qsit.json; without one the official profile is used when scoring.
    """
    from qsit_plugin.protocol import profile_for
    from qsit_plugin.weights.convert import convert as convert_folder

    stored = None if profile is None else profile_for(source, profile)
    typer.echo(str(convert_folder(source, target, profile=stored)))


@app.command()
def export(
    name: Name,
    onnx: Annotated[bool, typer.Option("--onnx", help="Graphs for ONNX Runtime; the only form there is.")] = False,
    revision: options.Revision = None,
) -> None:
    """Write a checkpoint's ONNX graphs into its folder, for --engine onnx; print their paths.

    Needs torch, onnx and onnxruntime; running the graphs needs onnxruntime only. They are compared with the torch model
    before they are kept, and hold no weights: those stay in the safetensors files beside them.
    """
    if not onnx:
        stop("say what to export: give --onnx", WRONG_USAGE)
    from qsit_plugin.checkpoint.onnx_export import export_onnx
    from qsit_plugin.weights import resolve

    for path in export_onnx(resolve(name, revision=revision)):
        typer.echo(f"{path} ({size_text(path.stat().st_size)})")
