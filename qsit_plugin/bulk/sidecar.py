"""Scores as XMP sidecars: files beside images in which photo tools keep stars.

Names and values are those of the XMP specification (ISO 16684-1): ``xmp:Rating`` is -1 for rejected, 0 for unrated, or
1 to 5. The name is the image's with ``.xmp`` behind its own suffix, as darktable, digiKam and Immich read it; so
photo.jpg and photo.png have each their own. What the standard has no name for is in a namespace of this package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from qsit_plugin.protocol import LEVELS
from qsit_plugin.version import __version__

NAMESPACE = "urn:qsit-plugin:score:1.0/"

REJECTED = -1

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def sidecar_path(image: str | os.PathLike[str]) -> str:
    """``photo.jpg.xmp`` of ``photo.jpg``."""
    return f"{os.fspath(image)}.xmp"


def rating(level: str) -> int:
    """Stars of a level: 5 for excellent to 1 for bad."""
    return len(LEVELS) - LEVELS.index(level)


def sidecar(record: Mapping[str, Any], *, rejected: bool = False) -> str:
    """The content of a sidecar: a whole XML document.

    Args:
        record: of one image, as ``Score.to_dict()`` and the rows of ``qsit score``; not of one that failed.
        rejected: ``xmp:Rating`` is -1, which photo tools show as rejected; else the level's stars.
    """
    stars = REJECTED if rejected else rating(record["level"])
    own = {"Score": f"{record['score']:.6f}", "Spread": f"{record['std']:.6f}", "Level": record["level"]}
    own |= {name.capitalize(): str(record[name]) for name in ("model", "fingerprint", "mode") if record.get(name)}
    stated = {"xmp:Rating": str(stars)} | {f"qsit:{name}": value for name, value in own.items()}
    attributes = "\n".join(f"    {name}={_attribute(value)}" for name, value in stated.items())
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="qsit-plugin {__version__}">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:qsit="{NAMESPACE}"
{attributes}/>
 </rdf:RDF>
</x:xmpmeta>
"""


def _attribute(text: str) -> str:
    """Quoted, without what no XML document may hold."""
    return quoteattr(_NOT_XML.sub("\ufffd", text))
