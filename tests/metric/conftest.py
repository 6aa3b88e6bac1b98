"""The metric always runs on torch, and so does the model that it is held against."""

import pytest


@pytest.fixture(scope="session")
def nano(nano_torch):
    return nano_torch
