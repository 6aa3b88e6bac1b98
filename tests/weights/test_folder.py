"""Checks of a checkpoint folder by its files alone."""

import json

import pytest

from qsit_plugin.weights import WeightsError
from qsit_plugin.weights.folder import INDEX, check_folder, weight_bytes


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path


def index(folder, *files):
    content = {"weight_map": {f"weight{i}": name for i, name in enumerate(files)}}
    (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")


def test_a_folder_without_config_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="no config.json"):
        check_folder(tmp_path)


def test_a_parent_of_a_checkpoint_names_the_subfolder(tmp_path):
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match="subfolder mini"):
        check_folder(tmp_path)


def test_an_adapter_folder_is_recognised(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match="peft adapter.*adapter="):
        check_folder(tmp_path)


def test_a_file_is_not_a_checkpoint_folder(folder):
    with pytest.raises(WeightsError, match="is not a folder"):
        check_folder(folder / "config.json")


def test_a_folder_without_weights_is_incomplete(folder):
    with pytest.raises(WeightsError, match="lacks model.safetensors.*repeat it"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_pickle_files_alone_are_refused_with_the_cure(folder, name):
    (folder / name).write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=f"only pickle files \\({name}\\).*convert them to safetensors"):
        check_folder(folder)


def test_pickle_files_beside_safetensors_are_left_alone(folder):
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "model.safetensors").write_bytes(b"12345")
    assert check_folder(folder) == folder
    assert weight_bytes(folder) == 5


def test_a_shard_that_the_index_names_must_be_there(folder):
    index(folder, "model-1.safetensors", "model-2.safetensors")
    (folder / "model-1.safetensors").write_bytes(b"123")
    with pytest.raises(WeightsError, match="lacks model-2.safetensors"):
        check_folder(folder)
    (folder / "model-2.safetensors").write_bytes(b"4567")
    assert weight_bytes(check_folder(folder)) == 7


def test_an_index_that_points_outside_its_folder_is_refused(folder):
    index(folder, "../elsewhere.safetensors")
    with pytest.raises(WeightsError, match="names what is no file of its folder"):
        check_folder(folder)


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_config_that_is_not_a_json_object_is_an_error(folder, content):
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match="config.json.*again"):
        check_folder(folder)
