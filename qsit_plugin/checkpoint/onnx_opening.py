"""Opens a checkpoint folder for the ONNX engine: its record, tokenizer and profile. Imports neither torch nor
transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qsit_plugin.engines.base import Engine
from qsit_plugin.limits import LimitError, limited
from qsit_plugin.protocol import ScoreProfile, profile_for
from qsit_plugin.tiling import Tiling
from qsit_plugin.weights.errors import refusing
from qsit_plugin.weights.fingerprint import fingerprint
from qsit_plugin.weights.folder import check_folder
from qsit_plugin.weights.json_file import check_json_files

from .onnx_record import OnnxRecord, read_record
from .plain_tokenizer import PlainTokenizer


@dataclass
class OnnxCheckpoint:
    """An opened checkpoint whose graphs run in ONNX Runtime; what ``QSiT`` asks of a ``Checkpoint``, without weights.

    Every check on config and weights that a load through torch makes was made when the graphs were exported, and the
    record's hash says that the files are still the same.
    """

    folder: Path
    name: str
    """As the user gave it: a catalogue name, a folder's name, a Hub id."""
    record: OnnxRecord
    tokenizer: PlainTokenizer
    tiling: Tiling
    profile: ScoreProfile
    fingerprint: str
    """Of the files that the weights are read from."""
    quantization: None = None

    @property
    def chat_template(self) -> str:
        return self.record.chat_template

    @property
    def image_token(self) -> int:
        return self.record.image_token

    @property
    def context(self) -> int:
        return self.record.context

    @property
    def stop_ids(self) -> frozenset[int]:
        return frozenset(self.record.stop_ids)

    def engine(self, follow_autocast: bool = False) -> Engine:
        """``follow_autocast`` has no meaning here: torch's autocast reaches no other runtime.

        Raises WeightsError for graphs or weights that cannot be opened.
        """
        from qsit_plugin.engines.onnx_engine import OnnxEngine

        with refusing(f"the ONNX graphs of {self.folder} cannot be opened"):
            return OnnxEngine(self.folder, self.record, self.tiling)


def open_onnx_checkpoint(
    folder: str | Path,
    *,
    name: str | None = None,
    profile: ScoreProfile | str | Path | None = None,
    max_tiles: int | None = None,
    max_image_tokens: int | None = None,
) -> OnnxCheckpoint:
    """Open a folder with graphs; arguments as for ``opening.open_checkpoint``.

    Raises:
        WeightsError: no graphs, or graphs that do not belong to the folder as it is now.
        ProfileError: the profile is malformed or does not fit the tokenizer.
        LimitError: a limit that this checkpoint's grid cannot keep.
    """
    folder = Path(folder)
    check_folder(folder)
    check_json_files(folder)
    record = read_record(folder)
    tokenizer = PlainTokenizer(folder / "tokenizer.json", record.special_tokens)
    chosen = profile_for(folder, profile)
    with refusing(f"the tokenizer of {folder} (tokenizer.json) does not work"):
        chosen.check_tokenizer(tokenizer)
    with refusing(f"the checkpoint {folder} cannot be opened", LimitError):
        tiling = limited(record.read_tiling(), max_tiles, max_image_tokens)
    return OnnxCheckpoint(folder, name or folder.resolve().name, record, tokenizer, tiling, chosen, fingerprint(folder))
