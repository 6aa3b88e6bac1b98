"""Fetches checkpoints from the Hugging Face Hub and finds those that are already in its cache."""

from __future__ import annotations

from pathlib import Path

from qsit_plugin.errors import WeightsError
from qsit_plugin.weights.folder import check_folder

PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.onnx"]
"""What a checkpoint needs. Pickles and Python files are never fetched."""


def cached_snapshot(repo: str, revision: str | None = None) -> Path | None:
    """The complete copy in the Hub's cache, or None; touches no network."""
    from huggingface_hub import snapshot_download

    try:
        return check_folder(snapshot_download(repo, revision=revision, allow_patterns=PATTERNS, local_files_only=True))
    except (FileNotFoundError, WeightsError):  # not there, or an interrupted download: both mean fetch it
        return None


def snapshot(repo: str, revision: str | None = None, *, download: bool = True, asked_as: str | None = None) -> Path:
    """Fetch a checkpoint into the Hub's cache (``HF_HOME``) and return its folder.

    ``asked_as`` is the name that the user gave, for messages. Raises WeightsError with the cure.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub import errors as hub

    name = asked_as or repo
    offline = constants.HF_HUB_OFFLINE
    if offline or not download:
        why = "HF_HUB_OFFLINE is set" if offline else "downloading is switched off"
        # A cached copy that is refused (pickles only, code) deserves its own message.
        try:
            return check_folder(
                snapshot_download(repo, revision=revision, allow_patterns=PATTERNS, local_files_only=True)
            )
        except FileNotFoundError:
            raise WeightsError(_not_here(name, repo, revision, why)) from None
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=PATTERNS)
    except hub.GatedRepoError:
        raise WeightsError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then run: hf auth login"
        ) from None
    except hub.RevisionNotFoundError:
        raise WeightsError(f"{repo} has no revision {revision!r}; see https://huggingface.co/{repo}/commits") from None
    except hub.RepositoryNotFoundError:
        raise WeightsError(
            f"no folder {name!r} here and no repository {repo!r} on the Hub: check the spelling, or, if it is private, "
            "run: hf auth login"
        ) from None
    except hub.LocalEntryNotFoundError:
        raise WeightsError(_not_here(name, repo, revision, "the Hub cannot be reached")) from None
    except Exception as error:  # the Hub client lets errors of its HTTP library through, which differ by version
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise WeightsError(_not_here(name, repo, revision, f"the download failed ({reason})")) from error
    return check_folder(folder)


def _not_here(name: str, repo: str, revision: str | None, why: str) -> str:
    at = f" --revision {revision}" if revision else ""
    return (
        f"{name} ({repo}) is not on this machine and {why}. With network, run: qsit weights download {name}{at} ; "
        "or copy its folder from another machine and give the folder's path, or point HF_HOME to a cache that has it. "
        "qsit-nano needs no network"
    )
