from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tuning(tmp_path_factory: pytest.TempPathFactory):
    """A tiny checkpoint, rated pictures and their rows; see runs.Data. Do not change it."""
    from tests.training.runs import make_data

    folder: Path = tmp_path_factory.mktemp("tuning")
    return make_data(folder)
