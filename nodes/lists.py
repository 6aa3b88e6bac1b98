"""Inputs of the nodes that take a whole list at once: images of several sources and sizes, with what belongs to them.

ComfyUI gives every input of such a node as a list: widgets as a list of one, a batch as a list with that batch. An item
that another node has blocked blocks the whole node then; ComfyUI decides that before the node is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from qsit_plugin.nodes.carry import some_images, some_latents
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.pictures import check_batch
from qsit_plugin.nodes.records import Record, values

Place = tuple[int, int]
"""(item of the list, index in that item's batch)."""


def one(given: Sequence[Any], name: str) -> Any:
    """The value of a widget. Raises InputError where a list of different values was connected to it."""
    if not given:
        raise InputError(f"{name} is an empty list")
    if any(value != given[0] for value in given[1:]):
        raise InputError(f"{name} must be one value for the whole list, got {len(given)}: {', '.join(map(str, given))}")
    return given[0]


def named(batches: Sequence[Any], name: str) -> Iterator[tuple[str, Any]]:
    """Each batch of a list with the name under which messages speak of it. Raises InputError for an empty list."""
    if not batches:
        raise InputError(f"{name} is an empty list")
    for number, batch in enumerate(batches, 1):
        yield (name if len(batches) == 1 else f"{name}, item {number}"), batch


def all_records(scores: Sequence[Any], count: int) -> list[Record]:
    """The records of all items in order. Raises InputError unless there are ``count``."""
    for item in scores:
        values(item)
    records = [record for item in scores for record in item]
    values(records, count)
    return records


@dataclass(frozen=True)
class Pool:
    """All images of a list, numbered through, with the latents and masks that belong to them."""

    images: Sequence[Any]
    latents: Sequence[dict[str, Any]] | None
    masks: Sequence[Any] | None
    image_places: list[Place]
    latent_places: list[Place]
    mask_places: list[Place]

    def __len__(self) -> int:
        return len(self.image_places)

    def groups(self, kept: Sequence[int]) -> list[list[int]]:
        """The kept images as one batch; one by one where sizes, or forms of latents or masks, differ."""
        forms = [[self.images[item].shape[1:] for item in {self.image_places[i][0] for i in kept}]]
        if self.latents is not None:
            forms.append([_form(self.latents[item]) for item in {self.latent_places[i][0] for i in kept}])
        if self.masks is not None:
            forms.append([self.masks[item].shape[-2:] for item in {self.mask_places[i][0] for i in kept}])
        together = all(form == kind[0] for kind in forms for form in kind)
        return [list(kept)] if together else [[i] for i in kept]

    def some_images(self, kept: Sequence[int]) -> Any:
        return _cat([some_images(self.images[item], indices) for item, indices in _runs(self.image_places, kept)])

    def some_latents(self, kept: Sequence[int]) -> dict[str, Any]:
        assert self.latents is not None  # asked only where there are some
        return _joined([some_latents(self.latents[item], found) for item, found in _runs(self.latent_places, kept)])

    def some_masks(self, kept: Sequence[int]) -> Any:
        """A mask for each; a single one that belongs to all of them stays as it is."""
        assert self.masks is not None
        places = [self.mask_places[i] for i in kept]
        whole = self.masks[places[0][0]]
        if len(set(places)) == 1 and (whole.ndim == 2 or len(whole) == 1):
            return whole
        return _cat([(m if m.ndim == 3 else m[None])[i : i + 1] for m, i in ((self.masks[s], i) for s, i in places)])


def pool_of(images: Sequence[Any], latents: Sequence[Any] | None, masks: Sequence[Any] | None) -> Pool:
    """Raises InputError where something is no batch of images, or the numbers do not fit together."""
    counts = [check_batch(batch, name) for name, batch in named(images, "images")]
    return Pool(
        images,
        latents,
        masks,
        _places(counts),
        [] if latents is None else _latent_places(latents, sum(counts)),
        [] if masks is None else _mask_places(masks, counts),
    )


def _places(counts: Sequence[int]) -> list[Place]:
    return [(item, index) for item, count in enumerate(counts) for index in range(count)]


def _latent_places(latents: Sequence[Any], count: int) -> list[Place]:
    if not all(isinstance(item, dict) and item.get("samples") is not None for item in latents):
        raise InputError("latents must be a LATENT, a dictionary with samples")
    places = _places([len(item["samples"]) for item in latents])
    if len(places) != count:
        raise InputError(f"{len(places)} latents for {count} images: connect the latents that these were decoded from")
    return places


def _mask_places(masks: Sequence[Any], counts: Sequence[int]) -> list[Place]:
    """Masks are one for each image, one for each item of the list, or one for all images."""
    for mask in masks:
        if mask.ndim not in (2, 3):
            raise InputError(f"masks must be [B, H, W], got shape {tuple(mask.shape)}")
    sizes = [1 if mask.ndim == 2 else len(mask) for mask in masks]
    if sum(sizes) == sum(counts):
        return _places(sizes)
    if sizes == [1]:
        return [(0, 0)] * sum(counts)
    if len(sizes) == len(counts) and all(size in (1, count) for size, count in zip(sizes, counts, strict=True)):
        return [(item, index if sizes[item] > 1 else 0) for item, index in _places(counts)]
    raise InputError(f"{sum(sizes)} masks for {sum(counts)} images: there must be one for each, or one for all")


def _runs(places: Sequence[Place], kept: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Neighbours of one item together: (item, indices in it)."""
    for item, run in groupby((places[i] for i in kept), key=lambda place: place[0]):
        yield item, [index for _, index in run]


def _cat(parts: Sequence[Any]) -> Any:
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _form(latents: dict[str, Any]) -> dict[str, Any]:
    """What must be equal of latents that become one batch."""
    parts = {key: tuple(latents[key].shape[1:]) for key in ("samples", "noise_mask") if latents.get(key) is not None}
    rest = {key: repr(value) for key, value in latents.items() if key not in ("samples", "noise_mask", "batch_index")}
    return parts | rest | {"batch_index": latents.get("batch_index") is not None}


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Latents of one form as one batch; a noise mask that was one for its whole item becomes one for each."""
    if len(parts) == 1:
        return parts[0]
    joined = dict(parts[0], samples=_cat([part["samples"] for part in parts]))
    if joined.get("noise_mask") is not None:
        repeated = [[i % len(part["noise_mask"]) for i in range(len(part["samples"]))] for part in parts]
        joined["noise_mask"] = _cat([part["noise_mask"][order] for part, order in zip(parts, repeated, strict=True)])
    if joined.get("batch_index") is not None:
        joined["batch_index"] = [number for part in parts for number in part["batch_index"]]
    return joined
