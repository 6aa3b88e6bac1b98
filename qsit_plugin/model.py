"""QSiT: look at an image once, then score it, question it, compare it. The public face of the core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qsit_plugin.weights.errors import WeightsError, refusing

from . import protocol
from .chat import Conversation, check_options, check_question, stop_ids
from .context import room_after
from .engines import batches as engine
from .engines.ambient import check_fork, ordinary_tensors, without_autocast
from .engines.finite import OVERFLOWED, read_finite
from .engines.generation import Answer, text_pieces
from .engines.network import Network, Prompt
from .engines.writer import Writer
from .images.errors import MAX_PIXELS, pixel_limit
from .images.reading import ImageError, ImageInput, as_items, is_many, read_image
from .limits import limits_of
from .look import Look
from .scores import Comparison, Score

if TYPE_CHECKING:
    from PIL import Image

    from .checkpoint.opening import Checkpoint


class QSiT:
    """A model with one act: it looks at an image, then scores it and talks about it.

    Images are paths, bytes, open files, PIL images, arrays, tensors (see ``images.read_image``) or a Look. One image
    in, one result out; a list (or an N, C, H, W tensor) in, a list out.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        adapter: Any = None,
        automatic_dtype: bool = False,
        exif_rotation: bool = False,
        max_pixels: int | None = MAX_PIXELS,
        follow_autocast: bool = False,
    ):
        """``follow_autocast``: compute in the caller's autocast instead of outside; only for a model in training."""
        self.follow_autocast = follow_autocast
        self.checkpoint = checkpoint
        self.exif_rotation = exif_rotation
        self.max_pixels = pixel_limit(max_pixels)
        self.adapter = adapter
        self.automatic_dtype = automatic_dtype
        self.network = Network(checkpoint.model, checkpoint.tiling)
        self._prompts: dict[tuple[str, str], Prompt] = {}
        self._bfloat16: Network | None = None
        image_token = getattr(checkpoint.model.config, "image_token_id", None)
        if image_token is None:
            image_token = checkpoint.model.config.image_token_index  # its name before transformers 4.52
        self.conversation = Conversation(checkpoint.tokenizer, checkpoint.chat_template, image_token)
        self.stop_ids = stop_ids(checkpoint.model, checkpoint.tokenizer)
        self._check_prompt()

    def _check_prompt(self) -> None:
        """Render and tokenise the profile's question, so that what is wrong with template or tokenizer shows at load.

        Raises WeightsError.
        """
        profile, rows = self.profile, self.network.hf.get_input_embeddings().num_embeddings
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
    def scope(self) -> str:
        return self.profile.scope

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @property
    def context(self) -> int:
        """Tokens that the language model can read: prompt, image and answer together."""
        return int(self.checkpoint.model.config.text_config.max_position_embeddings)

    def arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """Around everything that the network computes: outside the caller's autocast."""
        return contextlib.nullcontext() if self.follow_autocast else without_autocast(self.device)

    def departures(self) -> list[str]:
        """What was chosen that changes outputs against the released procedure; Score and Answer say it in ``mode``."""
        changes = ["EXIF rotation"] if self.exif_rotation else []
        changes += [f"{self.checkpoint.quantization} weights"] if self.checkpoint.quantization else []
        return changes + limits_of(self.network.tiling)

    def mode(self, network: Network) -> str:
        """What Score and Answer say of a read by this network, the model's own or the second one in bfloat16."""
        changes = self.departures() + ([] if network is self.network else [OVERFLOWED])
        return ", ".join(changes) or "released"

    @ordinary_tensors()
    def bfloat16_network(self) -> Network:
        """A second copy of the network in bfloat16, opened when float16 first overflows; it stays in memory."""
        if self._bfloat16 is None or self._bfloat16.device != self.device:
            from .checkpoint.opening import open_checkpoint

            opened = open_checkpoint(
                self.folder,
                name=self.name,
                device=self.device,
                dtype=torch.bfloat16,
                adapter=self.adapter,
                profile=self.profile,
                quantization=self.checkpoint.quantization,
            )
            self._bfloat16 = Network(opened.model, self.network.tiling)
        return self._bfloat16

    def prompt(self, question: str, answer_prefix: str = "") -> Prompt:
        """The tokens of a rendered question. Chat template and answer prefix are tokenised apart, as released.

        Raises ContextError for a question that fits beside no image, ValueError for one that contains the image token.
        """
        key = (question, answer_prefix)
        found = self._prompts.get(key)
        if found is None:
            found = self.conversation.prompt(question, answer_prefix)
            self.room(found, self.network.tiling.side**2)  # the base view alone, which every image has
            if len(self._prompts) > 256:
                self._prompts.clear()
            self._prompts[key] = found  # returned from here: another thread may clear the dictionary
        return found

    def read(self, image: ImageInput) -> Image.Image:
        """The picture as this model looks at it, RGB; see ``images.read_image``. Raises ImageError for a bad one."""
        return read_image(image, exif_rotation=self.exif_rotation, max_pixels=self.max_pixels)

    def room(self, prompt: Prompt, image_tokens: int) -> int:
        """Tokens that the context has left for an answer. Raises ContextError when it does not even hold these."""
        return room_after(prompt, image_tokens, self.context, self.name)

    @torch.inference_mode()
    def encode(self, image: Any) -> Any:
        """See an image: a Look, or a list of Looks for a list of images. Raises ImageError for a bad one."""
        if is_many(image):
            return [self.encode(item) for item in as_items(image)]
        return self._look(image, None)[0]

    @torch.inference_mode()
    def _look(self, image: Any, prompt: Prompt | None) -> tuple[Look, int]:
        """A look at one image and the room that the context leaves after it and the prompt, which is checked first."""
        check_fork()
        own = isinstance(image, Look)
        if own and image.model is not self:
            raise ValueError(f"this look was made by {image.model!r}, not by {self!r}: encode the image again")
        picture = image.image if own else self.read(image)
        room = 0 if prompt is None else self.room(prompt, self.network.tiling.token_count(*picture.size))
        if own:
            return image, room
        with self.arithmetic():
            return Look(self, self.network.look_at(picture), picture.size, picture), room

    def score(self, images: Any, *, errors: str = "raise") -> Any:
        """Score one image, or a list of any sizes in one true batch.

        ``errors="return"`` puts an ImageError in the place of an image that cannot be read; ``"raise"`` raises it.
        """
        results = list(self.iter_scores(as_items(images), errors=errors))
        return results if is_many(images) else results[0]

    def iter_scores(self, images: Iterable[Any], *, errors: str = "raise") -> Iterator[Score | ImageError]:
        """Score images one after the other, lazily and in order, in batches behind the scenes."""
        return engine.iter_scores(self, images, errors=errors)

    @torch.inference_mode()
    def level_logits(self, images: Any) -> torch.Tensor:
        """Float32 (N, 5) logits of the level words, excellent to bad, on the CPU. Raises ImageError for a bad image."""
        readings = list(engine.iter_readings(self, as_items(images), errors="raise"))
        rows = [reading.logits for reading in readings]
        return torch.tensor(rows, dtype=torch.float32, device="cpu").reshape(-1, len(protocol.LEVELS))

    def ask(self, images: Any, question: str, **options: Any) -> Any:
        """Answer a question about an image: an Answer, or a list of them for a list of images.

        Args:
            max_new_tokens: at most this many tokens (200, as released).
            temperature: None is greedy; above 0 samples from the softened distribution.
            seed: of the sampling; the same seed gives the same text.
            cancel: called before every token; True ends the answer with ``finish_reason="cancelled"``.

        An answer that reaches the end of the context ends there with ``finish_reason="length"``.

        Raises:
            ImageError: a bad image.
            ContextError: a ValueError; question and image together are longer than the context.
            NonFiniteError: the logits overflowed in a dtype that was chosen, or the weights are damaged.
        """
        if is_many(images):
            return [self.ask(item, question, **options) for item in as_items(images)]
        writer, tokens = self._write(images, question, **options)
        written: list[int] = []
        while True:
            try:
                written.append(next(tokens))
            except StopIteration as end:
                reason, keep = end.value
                break
        return Answer(self.conversation.decode(written[:keep]).strip(), keep, reason, self.mode(writer.network))

    def explain(self, images: Any, **options: Any) -> Any:
        """Describe and evaluate the quality of an image in words; options as for ``ask``."""
        return self.ask(images, protocol.EXPLAIN, **options)

    def stream(self, image: Any, question: str = protocol.EXPLAIN, **options: Any) -> Iterator[str]:
        """The answer piece by piece, as it is written; options as for ``ask``.

        Pieces that were handed out cannot be taken back: where ``ask`` cuts a repetition, ``stream`` just ends.
        """
        return text_pieces(self.conversation.decode, self._write(image, question, **options)[1])

    def _write(self, image: Any, question: str, **options: Any) -> tuple[Writer, Iterator[int]]:
        check_question(question)
        prompt = self.prompt(question)
        look, room = self._look(image, prompt)
        writer = Writer(look, prompt)
        return writer, writer.tokens(room, **options)

    @torch.inference_mode()
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
        look, _ = self._look(image, prompt)

        def logits(network: Network) -> torch.Tensor:
            state = network.stepper(look.prefix(prompt.before, network), prompt.after)(None)
            return network.token_logits(state, letters)[0]

        return read_finite(self, logits)[0].softmax(-1).tolist()

    def attributes(self, image: Any) -> Any:
        """Six aspects in [0, 1], 1 = good: a choice between "good" and "poor", asked in both orders and averaged."""
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
        """Score two images and say how probable it is that A is the better one."""
        score_a, score_b = self.score([a, b])
        return Comparison(score_a, score_b)

    def rank(self, images: Any) -> list[tuple[int, Score]]:
        """(index, Score) of every image, best first; equal values keep their order."""
        return sorted(enumerate(self.score(list(as_items(images)))), key=lambda pair: -pair[1].value)

    def quality_map(
        self,
        image: ImageInput,
        *,
        window: int | None = None,
        overlap: float = 0.5,
        on_region: Callable[[], None] | None = None,
    ) -> np.ndarray:
        """Float32 (H, W) in [0, 1]: scores of overlapping square regions, blended. See ``engine.quality_map``."""
        picture = image.image if isinstance(image, Look) else self.read(image)
        return engine.quality_map(self, picture, window=window, overlap=overlap, on_region=on_region)
