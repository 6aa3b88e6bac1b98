"""A checkpoint's ``tokenizer.json`` through the tokenizers package, with what this package asks of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qsit_plugin.weights.errors import refusing


class PlainTokenizer:
    """The methods of transformers' tokenizers that are used here, with their names and results, without transformers.

    The export of graphs compares it with the checkpoint's own (``onnx_export.py``).
    """

    def __init__(self, path: Path, special_tokens: dict[str, Any]):
        """Raises WeightsError for a file that is no tokenizer."""
        with refusing(f"{path} is no tokenizer"):
            self._backend = Tokenizer.from_file(str(path))
            self._backend.no_truncation()
            self._backend.no_padding()
        self._path, self.special_tokens_map = path, special_tokens

    def __reduce__(self) -> Any:
        return PlainTokenizer, (self._path, self.special_tokens_map)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False, **_: Any) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def convert_ids_to_tokens(self, token: int) -> str | None:
        return self._backend.id_to_token(token)
