"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that the process may run on, at most what its container's quota of time is worth; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def cpu_quota(group: Path = _GROUP) -> float | None:
    """CPUs' worth of time that this container may use (cgroup 2 or 1); None without a limit or outside Linux."""
    try:
        if (group / "cpu.max").is_file():
            limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            limit, period = (
                (group / "cpu" / name).read_text(encoding="ascii").strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
    except OSError:
        return None
    return None if limit in ("max", "-1") else int(limit) / int(period)
