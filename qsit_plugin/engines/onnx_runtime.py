"""ONNX Runtime as it is imported here: without its telemetry.

From 1.29 on its packages for Linux and macOS, as those for Windows before, report each session (names and hashes of the model, the
hardware) to Microsoft by default, and write a device id below the home folder. A command that scores a photo must not.
"""

from __future__ import annotations

import os
from types import ModuleType

SWITCH = "ORT_DISABLE_TELEMETRY"
"""Read by ONNX Runtime when it is loaded. Set to something by the user, it stays as it is."""


def onnxruntime() -> ModuleType:
    """The package, imported with telemetry switched off; where the process has imported it before, switched off now.

    Raises ModuleNotFoundError where it is not installed.
    """
    ours = SWITCH not in os.environ
    os.environ.setdefault(SWITCH, "1")
    import onnxruntime

    if ours:
        onnxruntime.disable_telemetry_events()
    return onnxruntime
