"""From a name to a folder: catalogue, folders, the Hub's cache, and messages that say what to do."""

import shutil
from pathlib import Path

import pytest

from qsit_plugin.weights import ENTRIES, WeightsError, resolve, status
from qsit_plugin.weights import catalogue as catalogue_module
from qsit_plugin.weights.catalogue import NANO
from tests.tiny import tiny_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny", official=False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hub cache; huggingface_hub reads HF_HUB_CACHE and HF_HUB_OFFLINE once, when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_into_cache(cache, repo, source, revision="main"):
    """Lay a checkpoint into the cache as huggingface_hub does."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT, encoding="utf-8")
    return Path(shutil.copytree(source, root / "snapshots" / COMMIT))


def test_the_catalogue_names_the_published_repositories():
    assert {name: entry.repo for name, entry in ENTRIES.items()} == {
        "qsit": "zhangzicheng/q-sit",
        "qsit-mini": "zhangzicheng/q-sit-mini",
        "qsit-nano": None,
    }


def test_an_existing_folder_is_taken_as_it_is(tiny):
    assert resolve(tiny) == tiny
    assert resolve(str(tiny)) == tiny


def test_the_embedded_model_lies_in_the_package_and_touches_no_cache(cache):
    if not (NANO / "config.json").is_file():
        pytest.skip("weights/nano is not there yet: training/nano makes it")
    assert resolve("qsit-nano") == NANO
    assert status("qsit-nano").folder == NANO
    assert not cache.exists()


def test_a_damaged_embedded_model_says_reinstall(tiny, tmp_path, monkeypatch):
    damaged = Path(shutil.copytree(tiny, tmp_path / "nano"))
    (damaged / "model.safetensors").unlink()
    monkeypatch.setattr(catalogue_module, "NANO", damaged)
    with pytest.raises(WeightsError, match="model.safetensors.*reinstall: pip install"):
        resolve("qsit-nano")
    assert status("qsit-nano").folder is None


def test_a_revision_of_the_embedded_model_is_an_error():
    with pytest.raises(WeightsError, match="no revisions"):
        resolve("qsit-nano", revision="main")


def test_a_revision_of_a_folder_is_an_error(tiny):
    with pytest.raises(WeightsError, match="only Hub checkpoints"):
        resolve(tiny, revision="main")


@pytest.mark.parametrize(
    ("wrong", "right"), [("qsit-nanno", "qsit-nano"), ("QSIT-MINI", "qsit-mini"), ("qsti", "qsit")]
)
def test_a_misspelt_name_gets_close_matches(wrong, right):
    with pytest.raises(WeightsError, match=f"no checkpoint '{wrong}': did you mean.* {right}"):
        resolve(wrong)


def test_a_path_that_is_not_there_is_no_hub_id(tmp_path):
    with pytest.raises(WeightsError, match="no checkpoint"):
        resolve(tmp_path / "absent")
    with pytest.raises(WeightsError, match="no checkpoint"):
        resolve(Path("owner/name"))


def test_a_cached_catalogue_checkpoint_is_found_without_network(cache, tiny):
    folder = put_into_cache(cache, "zhangzicheng/q-sit-mini", tiny)
    assert resolve("qsit-mini") == folder
    assert resolve("qsit-mini", download=False) == folder
    entry = status("qsit-mini")
    assert (entry.folder, entry.size) == (folder, (tiny / "model.safetensors").stat().st_size)


def test_a_hub_id_and_a_pinned_revision_are_found_in_the_cache(cache, tiny):
    folder = put_into_cache(cache, "someone/their.model", tiny, revision="v2")
    assert resolve("someone/their.model", revision="v2") == folder
    assert resolve("someone/their.model", revision=COMMIT) == folder
    with pytest.raises(WeightsError, match="--revision v1"):
        resolve("someone/their.model", revision="v1")


def test_a_checkpoint_that_is_not_cached_says_what_to_run_when_offline(cache):
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set.*run: qsit weights download qsit-mini .*HF_HOME"):
        resolve("qsit-mini")
    assert status("qsit-mini").folder is None


def test_downloading_switched_off_never_asks_the_network(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(WeightsError, match="downloading is switched off"):
        resolve("qsit-mini", download=False)


def test_a_network_that_fails_is_a_weights_error_that_says_what_to_run(cache, monkeypatch):
    """The test session lets no connection out, so this is a real failure of the real client."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    with pytest.raises(WeightsError, match="run: qsit weights download qsit-mini"):
        resolve("qsit-mini")


def test_an_incomplete_cached_download_is_not_taken_for_the_checkpoint(cache, tiny):
    folder = put_into_cache(cache, "zhangzicheng/q-sit-mini", tiny)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="model.safetensors"):
        resolve("qsit-mini")


def test_a_cached_checkpoint_with_code_is_refused_when_offline(cache, tiny):
    folder = put_into_cache(cache, "zhangzicheng/q-sit-mini", tiny)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}', encoding="utf-8")
    with pytest.raises(WeightsError, match="auto_map"):
        resolve("qsit-mini")


def test_a_folder_named_like_a_catalogue_entry_never_replaces_it(cache, tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny, tmp_path / "here" / "qsit-mini")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(WeightsError, match="is not on this machine"):
        resolve("qsit-mini")
    assert resolve("./qsit-mini") == Path("qsit-mini")


@pytest.mark.parametrize("name", ["o/na..me", "o/na--me", "o/name.git", "o/name-", "o/" + "n" * 120])
def test_a_name_that_can_be_no_hub_id_is_a_weights_error(cache, name):
    with pytest.raises(WeightsError, match="is no folder here and cannot be a Hub id"):
        resolve(name)


def test_the_status_of_an_unknown_name_is_an_error():
    with pytest.raises(WeightsError, match="no checkpoint"):
        status("qsit-giant")
