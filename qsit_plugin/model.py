"""QSiT, the public interface of the core: encode an image once, then score it and ask about it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, overload

import numpy as np

from qsit_plugin.weights.errors import refusing

from . import protocol
from .chat import Conversation, check_options, check_question, room_after
from .engines.base import Engine, Logits, Prompt
from .engines.batches import WRITING, Item, in_batches, open_item
from .engines.finite import OVERFLOWED, read_finite
from .engines.generation import Answer, Row, Writing, text_pieces, write
from .engines.level_logits import iter_readings, iter_scores
from .errors import ContextError, ImageError, WeightsError
from .images.errors import MAX_PIXELS, pixel_limit
from .images.reading import ImageInput, as_items, is_many, read_image
from .limits import limits_of
from .look import Look
from .quality_map import quality_map
from .scores import Comparison, Score

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from .checkpoint import Checkpoint
    from .checkpoint.onnx_opening import OnnxCheckpoint
    from .engines.torch_engine import TorchEngine

One: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | Look"
Many: TypeAlias = "list[Any] | tuple[Any, ...]"
Array: TypeAlias = "np.ndarray | torch.Tensor"
"""One image with three axes, several with four."""

_BFLOAT16_LOCK = threading.Lock()
"""Shared by all models: a lock in each would keep a model from being copied and pickled."""


class QSiT:
    """An opened checkpoint: scores images and answers questions about them.

    Images are paths, bytes, open files, PIL images, arrays, tensors (see ``images.reading.read_image``) or a Look. One
    image in, one result out; a list (or an N, C, H, W tensor) in, a list out.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | OnnxCheckpoint,
        *,
        adapter: Any = None,
        automatic_dtype: bool = False,
        exif_rotation: bool = False,
        max_pixels: int | None = MAX_PIXELS,
        follow_autocast: bool = False,
    ):
        """
        Args:
            checkpoint: see ``open_checkpoint`` and ``open_onnx_checkpoint``.
            adapter: the folder of the adapter that is merged in it; the second engine is opened with it, too.
            automatic_dtype: the dtype was not chosen by the user, so that an overflow of float16 is read again in
                bfloat16.
            exif_rotation, max_pixels: as in ``load``.
            follow_autocast: compute in the caller's autocast instead of outside; only for a model in training.

        Raises:
            WeightsError: chat template or tokenizer cannot render the profile's question.
            ValueError: ``max_pixels`` is no whole number from 1 on.
        """
        self.checkpoint: Any = checkpoint
        self.exif_rotation = exif_rotation
        self.max_pixels = pixel_limit(max_pixels)
        self.adapter = adapter
        self.automatic_dtype = automatic_dtype
        self.engine: Any = checkpoint.engine(follow_autocast)  # training and gradients use more than the protocol
        self._prompts: dict[tuple[str, str], Prompt] = {}
        self._bfloat16: TorchEngine | None = None
        self.conversation = Conversation(checkpoint.tokenizer, checkpoint.chat_template, checkpoint.image_token)
        self.stop_ids = checkpoint.stop_ids
        self._check_prompt()

    def _check_prompt(self) -> None:
        """Render and tokenise the profile's question, so that a bad template or tokenizer is found at load.

        Raises WeightsError.
        """
        profile, rows = self.profile, self.engine.vocabulary
        with refusing(f"{self.folder} cannot render its own question"):
            prompt = self.prompt(profile.question, profile.answer_prefix)
        largest = max(*prompt.before, *prompt.after, *profile.level_token_ids, 0)
        if largest >= rows:
            raise WeightsError(
                f"{self.folder}: its tokenizer makes token {largest}, its model knows {rows}: they belong to different "
                "checkpoints; copy both from the same one"
            )

    def __repr__(self) -> str:
        return f"QSiT({self.name!r}, device={str(self.device)!r}, dtype={self.dtype})"

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder

    @property
    def profile(self) -> protocol.ScoreProfile:
        return self.checkpoint.profile

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the weights' files, or "unsaved"; see ``weights.fingerprint.fingerprint``."""
        return self.checkpoint.fingerprint

    @property
    def scope(self) -> str:
        return self.profile.scope

    @property
    def device(self) -> Any:
        """The torch.device; on the ONNX engine the text "cpu"."""
        return self.engine.device

    @property
    def dtype(self) -> Any:
        """The torch.dtype; on the ONNX engine the text "float32"."""
        return self.engine.dtype

    @property
    def context(self) -> int:
        """Tokens that the language model can read: prompt, image and answer together."""
        return self.checkpoint.context

    def departures(self) -> list[str]:
        """The options that change outputs against the released procedure, as ``mode`` names them."""
        changes = ["EXIF rotation"] if self.exif_rotation else []
        changes += [f"{self.checkpoint.quantization} weights"] if self.checkpoint.quantization else []
        return changes + limits_of(self.engine.tiling)

    def mode(self, engine: Engine) -> str:
        """``mode`` of a Score or Answer by this engine, the model's first or the second one in bfloat16."""
        changes = self.departures() + ([] if engine is self.engine else [OVERFLOWED])
        return ", ".join(changes) or "released"

    def bfloat16_engine(self) -> TorchEngine:
        """A second engine, opened when float16 first overflows; it stays in memory."""
        import torch

        from .checkpoint import open_checkpoint
        from .engines.ambient import ordinary_tensors

        with _BFLOAT16_LOCK:
            if self._bfloat16 is None or self._bfloat16.device != self.device:
                with ordinary_tensors():
                    opened = open_checkpoint(
                        self.folder,
                        name=self.name,
                        device=self.device,
                        dtype=torch.bfloat16,
                        adapter=self.adapter,
                        profile=self.profile,
                        quantization=self.checkpoint.quantization,
                    )
                opened.tiling = self.engine.tiling
                self._bfloat16 = opened.engine()
            return self._bfloat16

    def prompt(self, question: str, answer_prefix: str = "") -> Prompt:
        """The tokens of a rendered question. Chat template and answer prefix are tokenised apart, as released.

        Raises ContextError for a question that fits beside no image, ValueError for one that contains the image token.
        """
        key = (question, answer_prefix)
        found = self._prompts.get(key)
        if found is None:
            found = self.conversation.prompt(question, answer_prefix)
            self.room(found, self.engine.tiling.side**2)  # the base view alone, which every image has
            if len(self._prompts) > 256:
                self._prompts.clear()
            self._prompts[key] = found  # returned from here: another thread may clear the dictionary
        return found

    def read(self, image: ImageInput) -> Image.Image:
        """The picture as this model looks at it, RGB; see ``reading.read_image``. Raises ImageError for a bad one."""
        return read_image(image, exif_rotation=self.exif_rotation, max_pixels=self.max_pixels)

    def room(self, prompt: Prompt, image_tokens: int) -> int:
        """Tokens that the context has left for an answer. Raises ContextError when it does not even hold these."""
        return room_after(prompt, image_tokens, self.context, self.name)

    def own(self, look: Look) -> Look:
        """The look, if this model made it; ValueError if another one did, whose tokens would mean nothing here."""
        if look.model is not self:
            raise ValueError(f"this look was made by {look.model!r}, not by {self!r}: encode the image again")
        return look

    @overload
    def encode(self, image: One) -> Look: ...
    @overload
    def encode(self, image: Many) -> list[Look]: ...
    @overload
    def encode(self, image: Array) -> Any: ...
    def encode(self, image: Any) -> Any:
        """Encode an image: a Look, or a list of Looks for a list of images.

        Raises ImageError for a bad image, ValueError for a Look of another model.
        """
        if is_many(image):
            return [self.encode(item) for item in as_items(image)]
        return self.own(image) if isinstance(image, Look) else Look(self, self.read(image))

    @overload
    def score(self, images: One, *, errors: Literal["raise"] = "raise") -> Score: ...
    @overload
    def score(self, images: Many, *, errors: Literal["raise"] = "raise") -> list[Score]: ...
    @overload
    def score(self, images: Many, *, errors: Literal["return"]) -> list[Score | ImageError]: ...
    @overload
    def score(self, images: Any, *, errors: str = "raise") -> Any: ...
    def score(self, images: Any, *, errors: str = "raise") -> Any:
        """Score one image, or a list of any sizes in true batches: a Score, or a list of them.

        ``errors="return"`` puts an ImageError in the place of an image that cannot be read; ``"raise"`` raises it.

        Raises:
            ImageError: a bad image.
            ContextError: a ValueError; the profile's question and an image are together longer than the context.
            NonFiniteError: the logits overflowed in a dtype that was chosen, or the weights are damaged.
            ValueError: another word for ``errors``, or a Look of another model.
        """
        results = list(self.iter_scores(as_items(images), errors=errors))
        return results if is_many(images) else results[0]

    def iter_scores(self, images: Iterable[Any], *, errors: str = "raise") -> Iterator[Score | ImageError]:
        """Score images lazily and in order; batches are formed internally.

        Errors as for ``score``; TypeError for a single image.
        """
        return iter_scores(self, images, errors=errors)

    def level_logits(self, images: Any) -> torch.Tensor:
        """Float32 (N, 5) logits of the level words, excellent to bad, on the CPU. Errors as for ``score``."""
        import torch

        rows = [reading.logits for reading in iter_readings(self, as_items(images), errors="raise")]
        return torch.tensor(rows, dtype=torch.float32, device="cpu").reshape(-1, len(protocol.LEVELS))

    @overload
    def ask(self, images: One, question: str, **options: Unpack[Writing]) -> Answer: ...
    @overload
    def ask(self, images: Many, question: str, **options: Unpack[Writing]) -> list[Answer]: ...
    @overload
    def ask(self, images: Array, question: str, **options: Unpack[Writing]) -> Any: ...
    def ask(self, images: Any, question: str, **options: Unpack[Writing]) -> Any:
        """Answer a question about an image: an Answer, or a list of them for a list of images.

        A list is decoded as a batch; the texts are those of the images one by one. An
        answer that reaches the end of the context ends there with ``finish_reason="length"``.

        Args:
            max_new_tokens, temperature, seed, cancel: see ``engines.generation.Writing``.

        Raises:
            ImageError: a bad image.
            ContextError: a ValueError; question and image together are longer than the context.
            NonFiniteError: the logits overflowed in a dtype that was chosen, or the weights are damaged.
            TypeError, ValueError: a question that is no text, is empty or contains the image token, an option out of
                range, or a Look of another model.
        """
        answers = list(self.iter_answers(as_items(images), question, **options))
        return answers if is_many(images) else answers[0]

    def iter_answers(
        self, images: Iterable[Any], question: str, *, errors: str = "raise", **options: Unpack[Writing]
    ) -> Iterator[Answer | Exception]:
        """Answers in the order of the images, lazily: up to 16 are written together.

        ``errors="return"`` puts an ImageError, or the ContextError of an image that leaves the question no room, in the
        place of an answer; ``"raise"`` raises it. Options and other errors as for ``ask``.
        """
        check_question(question)
        prompt = self.prompt(question)

        def work(items: list[Item]) -> list[Answer]:
            rows = [self._row(item, prompt, **options) for item in items]
            for _ in write(rows, prompt):
                pass
            return [row.answer() for row in rows]

        returned = (ImageError, ContextError)
        return in_batches(self, prompt, images, work, WRITING, errors=errors, returned=returned)

    def _row(self, item: Item, prompt: Prompt, **options: Unpack[Writing]) -> Row:
        return Row(self, lambda engine: item.prefix(engine, prompt.before), item.room, **options)

    @overload
    def explain(self, images: One, **options: Unpack[Writing]) -> Answer: ...
    @overload
    def explain(self, images: Many, **options: Unpack[Writing]) -> list[Answer]: ...
    @overload
    def explain(self, images: Array, **options: Unpack[Writing]) -> Any: ...
    def explain(self, images: Any, **options: Unpack[Writing]) -> Any:
        """Describe and evaluate the quality of an image; options, result and errors as for ``ask``."""
        return self.ask(images, protocol.EXPLAIN, **options)

    def stream(
        self, image: ImageInput | Look, question: str = protocol.EXPLAIN, **options: Unpack[Writing]
    ) -> Iterator[str]:
        """The answer piece by piece, as it is written; options and errors as for ``ask``.

        Pieces that were handed out cannot be taken back: where ``ask`` cuts a repetition, ``stream`` just ends.
        """
        check_question(question)
        prompt = self.prompt(question)
        row = self._row(open_item(self, prompt, image), prompt, **options)
        return text_pieces(self.conversation.decode, (token for _, token in write([row], prompt)))

    @overload
    def choose(self, image: One, question: str, options: Sequence[str]) -> list[float]: ...
    @overload
    def choose(self, image: Many, question: str, options: Sequence[str]) -> list[list[float]]: ...
    @overload
    def choose(self, image: Array, question: str, options: Sequence[str]) -> Any: ...
    def choose(self, image: Any, question: str, options: Sequence[str]) -> Any:
        """Probabilities of the options, in the order given: a softmax over the logits of their letters.

        A list of images gives a list of lists. The wording is that of Q-SiT's multiple-choice evaluation.

        Raises:
            TypeError, ValueError: options that are not 2 to 26 different texts in a list; one text is not a list.
            ImageError, ContextError, NonFiniteError: as for ``ask``.
        """
        options = check_options(options)
        check_question(question)
        if is_many(image):
            return [self.choose(item, question, options) for item in as_items(image)]
        letters = [self.conversation.single_token(letter) for letter in protocol.letters(len(options))]
        prompt = self.prompt(protocol.multiple_choice(question, options))
        item = open_item(self, prompt, image)

        def read(engine: Engine, rows: list[int]) -> Logits:
            return engine.read_after(item.prefix(engine, prompt.before), prompt.after, letters)

        logits = read_finite(self, 1, read)[0][0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        return (shares / shares.sum()).tolist()

    @overload
    def attributes(self, image: One) -> dict[str, float]: ...
    @overload
    def attributes(self, image: Many) -> list[dict[str, float]]: ...
    @overload
    def attributes(self, image: Array) -> Any: ...
    def attributes(self, image: Any) -> Any:
        """Six aspects in [0, 1], 1 = good: a choice between "good" and "poor", asked in both orders and averaged.

        A list of images gives a list of dictionaries. Errors as for ``choose``.
        """
        if is_many(image):
            return [self.attributes(item) for item in as_items(image)]
        look = self.encode(image)
        result = {}
        for name, question in protocol.ATTRIBUTES.items():
            forward = self.choose(look, question, ["good", "poor"])[0]
            backward = self.choose(look, question, ["poor", "good"])[1]
            result[name] = (forward + backward) / 2
        return result

    def compare(self, a: Any, b: Any) -> Comparison:
        """Score two images and say how probable it is that A is the better one. Errors as for ``score``."""
        score_a, score_b = self.score([a, b])
        return Comparison(score_a, score_b)

    def rank(self, images: Any) -> list[tuple[int, Score]]:
        """(index, Score) of every image, best first; equal values keep their order. Errors as for ``score``."""
        return sorted(enumerate(self.score(list(as_items(images)))), key=lambda pair: -pair[1].value)

    def quality_map(
        self,
        image: ImageInput | Look,
        *,
        window: int | None = None,
        overlap: float = 0.5,
        on_region: Callable[[], None] | None = None,
    ) -> np.ndarray:
        """Float32 (H, W) in [0, 1]: scores of overlapping square regions, blended; see ``quality_map.quality_map``.

        Raises ValueError for a window or an overlap out of range; other errors as for ``score``.
        """
        picture = self.own(image).image if isinstance(image, Look) else self.read(image)
        return quality_map(self, picture, window=window, overlap=overlap, on_region=on_region)
