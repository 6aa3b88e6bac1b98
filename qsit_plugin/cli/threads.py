"""Thread settings of the command line's process on a machine that other programs use too.

For this process alone, and only where the user has not set them: the library never changes them, since they belong to
the program that it runs in.
"""

from __future__ import annotations

import math
import os
import sys

from qsit_plugin.engines.cores import cpu_quota


def share_the_cores() -> None:
    """Set OMP_WAIT_POLICY, and OMP_NUM_THREADS in a container with a quota, unless they are set. Call before torch.

    OpenMP's threads spin while they wait for each other. Where another process has a core, the thread on that core is
    late at every step and the others burn their time, and its: on two busy cores five times as slow as waiting asleep.
    And torch counts the cores of the machine, whatever share of them its container may use.
    """
    if "torch" in sys.modules:  # it has read them already; in another program's process they are not ours to set
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    quota = cpu_quota()
    if quota is not None and quota < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, math.floor(quota))))
