"""From a question to tokens: the checkpoint's own chat template and tokenizer, and what ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .engines.base import Prompt
from .errors import ContextError
from .template import render


class Conversation:
    """Renders questions about one image.

    The template decides where the image stands (the official one puts it first, whatever the order of the message);
    nothing here assumes it.
    """

    def __init__(self, tokenizer: Any, chat_template: str, image_token_id: int):
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.image_token_id = image_token_id

    def render(self, question: str) -> str:
        """The text of one user turn with an image, up to where the answer begins.

        Raises WeightsError for a template that fails or does not end, see template.py.
        """
        return render(self.chat_template, question, self.tokenizer.special_tokens_map)

    def prompt(self, question: str, answer_prefix: str = "") -> Prompt:
        """Tokens before and after the image. Rendered template and answer prefix are tokenised apart and joined.

        Raises ValueError when a question contains the image token, or a template renders none.
        """
        ids = self.tokenizer.encode(self.render(question)) + self._encode(answer_prefix)
        places = [i for i, token in enumerate(ids) if token == self.image_token_id]
        if len(places) != 1:
            raise ValueError(
                f"the rendered prompt holds {len(places)} image tokens instead of one: take "
                f"{self.tokenizer.convert_ids_to_tokens(self.image_token_id)!r} out of the question, "
                "or repair the checkpoint's chat template"
            )
        return Prompt(tuple(ids[: places[0]]), tuple(ids[places[0] + 1 :]))

    def single_token(self, text: str) -> int:
        """The id of a text that is one token, for example an option's letter. Raises ValueError when it is several."""
        ids = self._encode(text)
        if len(ids) != 1:
            raise ValueError(f"{text!r} is {len(ids)} tokens in this checkpoint's tokenizer, it must be one")
        return ids[0]

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


def check_question(question: str) -> None:
    """Raises TypeError for what is no text, ValueError for an empty one."""
    if not isinstance(question, str):
        raise TypeError(f"a question is one text, got {type(question).__name__}: ask several one after the other")
    if not question.strip():
        raise ValueError("the question is empty")
    _check_text(question)


def check_options(options: Sequence[str]) -> list[str]:
    """The options of a choice as a list. How many there may be is checked where they get letters.

    Raises TypeError for one text (its characters would be taken for options), for a collection without an order and
    for options that are no texts, ValueError for an empty option or one that stands twice.
    """
    if isinstance(options, str | bytes) or not isinstance(options, Sequence):
        raise TypeError(f'options must be a list of texts such as ["noise", "blur"], got {options!r:.80}')
    wrong = [option for option in options if not isinstance(option, str)]
    if wrong:
        raise TypeError(f"every option must be a text, got {wrong[0]!r:.80}")
    for option in options:
        _check_text(option)
    shown = [option.strip() for option in options]
    if "" in shown:
        raise ValueError(f"option {shown.index('') + 1} of {len(shown)} is empty: leave it out or write it")
    twice = [option for option in shown if shown.count(option) > 1]
    if twice:
        raise ValueError(f"option {twice[0]!r:.80} stands twice: give every option once")
    return list(options)


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: those of the generation config, and the tokenizer's end of turn."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _check_text(text: str) -> None:
    """Raises ValueError for half of a surrogate pair, which no tokenizer takes."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{ascii(text):.80} holds half of a surrogate pair: take it out, or decode the text again")


def room_after(prompt: Prompt, image_tokens: int, context: int, name: str) -> int:
    """Tokens that the context has left for an answer. ``name``: of the model, for the message.

    Raises ContextError when prompt and image alone are longer than the context: rotary positions that no training has
    seen give answers such as "TheTheThe".
    """
    text = len(prompt.before) + len(prompt.after)
    if text + image_tokens > context:
        raise ContextError(
            f"the question has {text:,} tokens with its chat template and the image {image_tokens:,}, together "
            f"{text + image_tokens:,}; {name} reads at most {context:,}: shorten the question by "
            f"{text + image_tokens - context:,} tokens"
        )
    return context - text - image_tokens
