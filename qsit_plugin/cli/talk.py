"""Text answers about photos: what ``qsit ask`` and ``qsit explain`` have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from . import options
from .failures import WRONG_USAGE, ending, note, report

if TYPE_CHECKING:
    from qsit_plugin.images.reading import ImageError
    from qsit_plugin.model import QSiT

FORMATS = ("text", "jsonl")


def talk(
    items: Sequence[Path | ImageError],
    questions: Sequence[str],
    choice: options.Choice,
    *,
    format: str | None,
    out: str | None,
    only_below: float | None = None,
    **writing: Any,
) -> None:
    """Ask the questions about every image, which is encoded once. ``writing``: max_new_tokens, temperature, seed.

    One question to several images is answered in batches, several questions one image after the other. With
    ``only_below`` the images are scored first, and those with a lower score are asked about.

    Raises typer.Exit(1) when some inputs failed.
    """
    from qsit_plugin.errors import ImageError

    from . import output
    from .cut_short import Tally

    kind = output.choose_format(format, out, FORMATS, "text")
    output.check_target(out, items)
    tally = Tally(len(items))
    with tally.ending("done"):
        model: Any = choice.open() if any(isinstance(item, Path) for item in items) else None  # None: all are errors
        if model is not None:
            _check(model, questions)
        names = len(items) > 1
        if model is not None and only_below is not None:
            items = _below(model, items, only_below)
            tally.total = len(items)
        with tally.writing(out), output.opened(out) as stream:
            page = _Page(stream, kind, names=names, questions=len(questions) > 1)
            for item, result in zip(items, page.results(model, items, questions, writing), strict=True):
                if isinstance(result, Exception):
                    tally.failed += 1
                    report(str(result) if isinstance(result, ImageError) else f"{item}: {result}")
                    page.add_error(item if isinstance(item, Path) else item.source, result)
                else:
                    page.add(model, item, result)
                tally.done += 1


def _check(model: QSiT, questions: Sequence[str]) -> None:
    """End with status 2 for a question that cannot be asked, before any image is read."""
    from qsit_plugin.chat import check_question

    for question in questions:
        with ending(WRONG_USAGE, ValueError):
            check_question(question)
            model.prompt(question)


def _below(model: QSiT, items: Sequence[Path | ImageError], limit: float) -> list[Path | ImageError]:
    """The images that score lower, and the errors of those that cannot be scored."""
    from qsit_plugin.errors import ImageError

    from .progress import Progress

    paths = [item for item in items if isinstance(item, Path)]
    scores = model.iter_scores(paths, errors="return")
    kept: list[Path | ImageError] = []
    low = 0
    with Progress(len(paths)) as progress:
        for item in items:
            score = next(scores) if isinstance(item, Path) else item
            progress.advance()
            if isinstance(score, ImageError):
                kept.append(score)
            elif score.value < limit:
                low += 1
                kept.append(item)
    note(f"{low} of {len(paths)} images score below {limit:g}")
    return kept


class _Page:
    """Text as it is written, or a JSON object an answer.

    One image and one question give the answer alone; several images stand each under its name, several questions each
    under its wording.
    """

    def __init__(self, stream: TextIO, kind: str, *, names: bool, questions: bool):
        from .output import JsonLines

        self.stream, self.names, self.questions = stream, names, questions
        self.rows = JsonLines(stream) if kind == "jsonl" else None
        self.begun = False

    def results(
        self, model: Any, items: Sequence[Path | ImageError], questions: Sequence[str], writing: dict[str, Any]
    ) -> Iterator[Any]:
        """For each item, in order: (question, answer) pairs, or the ImageError or ContextError in their place.

        An answer is an iterator of its pieces where it need not wait for another: in text, and not in a batch.
        """
        from qsit_plugin.errors import ContextError, ImageError

        paths = [item for item in items if isinstance(item, Path)]
        if len(paths) > 1 and len(questions) == 1:
            answers = model.iter_answers(paths, questions[0], errors="return", **writing)
            for item in items:
                found = next(answers) if isinstance(item, Path) else item
                yield found if isinstance(found, Exception) else [(questions[0], found)]
            return
        for item in items:
            try:
                if isinstance(item, ImageError):
                    raise item
                look = model.encode(item)
                for question in questions:  # this photo may leave one no room where a smaller one does
                    model.room(model.prompt(question), look.token_count)
                answer = look.stream if self.rows is None else look.ask
                yield ((question, answer(question, **writing)) for question in questions)
            except (ImageError, ContextError) as error:
                yield error

    def add(self, model: QSiT, path: Path | ImageError, answers: Iterable[tuple[str, Any]]) -> None:
        if self.rows is None and self.names:
            self.stream.write(("\n" if self.begun else "") + f"{path}\n")
        self.begun = True
        for question, answer in answers:
            if self.rows is not None:
                self.rows.write(answer_row(model, path, question, answer))
                continue
            if self.questions:
                self.stream.write(f"> {question}\n")
            write_text(self.stream, [answer.text] if hasattr(answer, "text") else answer)

    def add_error(self, path: object, error: Exception) -> None:
        from qsit_plugin.errors import ImageError
        from qsit_plugin.scores import error_row

        if self.rows is not None:
            self.rows.write(
                error_row(path, error if isinstance(error, ImageError) else ImageError(str(path), str(error)))
            )


def answer_row(model: QSiT, path: object, question: str, answer: Any) -> dict[str, Any]:
    """The JSONL row of ``qsit ask`` and ``qsit explain``."""
    return {
        "path": str(path),
        "question": question,
        "text": answer.text,
        "tokens": answer.tokens,
        "finish_reason": answer.finish_reason,
        "model": model.name,
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "engine": model.engine.name,
        "mode": answer.mode,
    }


def write_text(stream: TextIO, pieces: Iterable[str]) -> None:
    """Write a text as it is generated, without white space around it, and end its line, also when interrupted."""
    begun, held = False, ""
    try:
        for piece in pieces:
            held += piece
            text = held.rstrip() if begun else held.strip()
            if not text:
                continue
            held = held[len(held.rstrip()) :]
            stream.write(text)
            stream.flush()
            begun = True
    except KeyboardInterrupt:
        stream.write("\n")
        raise
    stream.write("\n")
    stream.flush()
