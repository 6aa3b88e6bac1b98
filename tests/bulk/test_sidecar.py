"""XMP sidecars: what a photo tool's parser finds in them."""

from __future__ import annotations

import xml.etree.ElementTree as tree

import pytest

from qsit_plugin.bulk.sidecar import NAMESPACE, sidecar, sidecar_path
from qsit_plugin.protocol import LEVELS

RECORD = {
    "score": 0.7123456, "level": "good", "std": 0.1, "model": "qsit-nano", "fingerprint": "0" * 12, "mode": "released",
}  # fmt: skip


def properties(text: str) -> dict[str, str]:
    """The attributes of the one description, by namespace and name."""
    root = tree.fromstring(text.encode("utf-8"))
    assert root.tag == "{adobe:ns:meta/}xmpmeta"
    (rdf,) = root
    assert rdf.tag == "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF"
    (description,) = rdf
    return dict(description.attrib)


@pytest.mark.parametrize(("level", "stars"), list(zip(LEVELS, "54321", strict=True)))
def test_a_level_is_its_stars(level: str, stars: str) -> None:
    assert properties(sidecar(RECORD | {"level": level}))["{http://ns.adobe.com/xap/1.0/}Rating"] == stars


def test_rejected_is_minus_one_and_keeps_the_score(level: str = "excellent") -> None:
    found = properties(sidecar(RECORD | {"level": level}, rejected=True))
    assert found["{http://ns.adobe.com/xap/1.0/}Rating"] == "-1"
    assert found[f"{{{NAMESPACE}}}Score"] == "0.712346" and found[f"{{{NAMESPACE}}}Level"] == "excellent"


def test_a_hostile_name_of_a_model_stays_a_value() -> None:
    name = 'a"/><x>\udce9\0&\n'
    assert properties(sidecar(RECORD | {"model": name}))[f"{{{NAMESPACE}}}Model"] == 'a"/><x>\ufffd\ufffd&\n'


def test_two_images_of_one_stem_have_two_sidecars() -> None:
    assert sidecar_path("a/b.jpg") == "a/b.jpg.xmp" != sidecar_path("a/b.png")
