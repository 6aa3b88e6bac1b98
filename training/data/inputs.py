"""What a run is trained and validated on: its files, read and checked against the model before the first step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from qsit_plugin.chat import Conversation, stop_ids
from qsit_plugin.checkpoint import Checkpoint
from qsit_plugin.evaluation.multiple_choice import Question
from qsit_plugin.protocol import letters

from ..config import ConfigError, RunConfig
from .choices import choice_of
from .dataset import QualityDataset
from .mixture import Mixture, MixtureError, read_data
from .rows import RowError, TrainingRow, only_image

log = logging.getLogger(__name__)


def rows_of(setting: str, path: str, seed: int) -> Mixture:
    """The rows of the file that a setting names. Raises ConfigError that names the setting."""
    try:
        return read_data(path, seed=seed)
    except MixtureError as error:
        raise ConfigError(f"{setting}: {error}") from None


def dataset_of(
    config: RunConfig, checkpoint: Checkpoint, mixture: Mixture, say: Callable[[str], None] = log.warning
) -> QualityDataset:
    """The rows as this model takes them. ``say``: takes the lines on images that are verified or left out.

    Raises ConfigError as QualityDataset does, and for the folder of images.
    """
    if not Path(config.images).is_dir():
        raise ConfigError(f"images: no folder {config.images}; give the one that the rows' image paths are relative to")
    possible = int(checkpoint.model.config.text_config.max_position_embeddings)
    if config.max_tokens is not None and config.max_tokens > possible:
        raise ConfigError(f"max_tokens is {config.max_tokens}, but the model has positions for {possible} only")
    return QualityDataset(
        mixture.rows(),
        config.images,
        conversation=_conversation(checkpoint),
        profile=checkpoint.profile,
        tiling=checkpoint.tiling,
        stop_ids=stop_ids(checkpoint.model, checkpoint.tokenizer),
        max_tokens=config.max_tokens or possible,
        verify=config.verify_images,
        skip_damaged=config.skip_damaged,
        workers=config.workers,
        seed=config.seed,
        say=say,
    )


def validation_of(path: str, config: RunConfig, checkpoint: Checkpoint) -> Mixture:
    """The validation rows, checked as those of training are; none is left out, so that all figures are of the same.

    Raises ConfigError also for rows without an image or with several, multiple-choice questions without a right option,
    letters that are not one token each, and a task without rows that balance needs.
    """
    found = rows_of("validation", path, config.seed)
    rows = found.rows()
    try:
        for row in rows:
            only_image(row)
        dataset_of(replace(config, skip_damaged=False), checkpoint, found)
    except (ConfigError, RowError) as error:
        raise ConfigError(f"validation, {path}:\n{error}") from None
    choices = questions_of(rows)
    if choices:
        check_letters(_conversation(checkpoint), max(len(question.options) for question in choices))
    lacking = [task for task in ("score", "interpret") if all(row.task != task for row in rows)]
    if lacking and config.balance is not None:
        raise ConfigError(
            f"balance: feedback compares both losses, but the {len(rows):,} validation rows have no task "
            f"{lacking[0]!r}: add such rows to {path}"
        )
    return found


def questions_of(rows: Sequence[TrainingRow]) -> list[Question]:
    """The multiple-choice questions among validation rows. Raises ConfigError for one without a right option."""
    try:
        return [question for row in rows if (question := choice_of(row)) is not None]
    except ValueError as error:
        raise ConfigError(f"validation: {error}") from None


def check_letters(conversation: Conversation, count: int) -> None:
    """Raise ConfigError unless the first letters of the alphabet are one token each, and different ones."""
    cure = "take multiple-choice questions out of validation, or fix the tokenizer of the base"
    try:
        ids = [conversation.single_token(letter) for letter in letters(count)]
    except ValueError as error:
        raise ConfigError(f"multiple-choice answers cannot be read: {error}; {cure}") from None
    if len(set(ids)) < count:
        raise ConfigError(
            f"multiple-choice answers cannot be read: the letters {', '.join(letters(count))} are tokens {ids}; {cure}"
        )


def _conversation(checkpoint: Checkpoint) -> Conversation:
    image_token = checkpoint.model.config.image_token_id
    return Conversation(checkpoint.tokenizer, checkpoint.chat_template, image_token)
