from pathlib import Path

import pytest

from tests.packaging.environments import Environment, build_sdist, build_wheel, copy_checkout


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A copy of the source tree."""
    return copy_checkout(tmp_path_factory.mktemp("source") / "qsit-plugin")


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(source, tmp_path_factory) -> Path:
    return build_sdist(source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Environment:
    """The wheel, installed beside torch, transformers and pyiqa. Do not change it."""
    return Environment.create(tmp_path_factory.mktemp("installed") / "env", linked=True).install(wheel)
