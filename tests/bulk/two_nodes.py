"""A Ray cluster of two nodes, made of processes of this machine, that scores a folder: ALBUM OUT KIND.

KIND ``kill``: the first worker that finishes a unit is killed (SIGKILL) in the middle of its next one. ``stop``: the
run is interrupted after its first unit, and then given again. Prints JSON of what happened.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from qsit_plugin.bulk import Scorer, work_units
from qsit_plugin.bulk.ray_scoring import Done, Workers, score_on_ray

IMAGES = 6


def main(album: str, out: str, kind: str) -> None:
    work_units.IMAGES = IMAGES
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=one)
    cluster.add_node(num_cpus=1)
    partial = Path(out + ".partial")
    seen: dict[str, Any] = {"killed": None, "workers": [], "first": [], "second": []}

    def kill(done: Done, result: dict[str, Any]) -> None:
        worker = result["worker"][1]
        seen["workers"].append(worker)
        if seen["killed"] is None:
            while not list(partial.glob(f"_part-*.{worker}")):
                time.sleep(0.001)
            os.kill(worker, signal.SIGKILL)
            seen["killed"] = worker

    def stop(done: Done, result: dict[str, Any]) -> None:
        seen["first"].append(result["part"])
        raise KeyboardInterrupt

    def score(on_unit: Any) -> Done:
        names = work_units.units([album])
        scorer = Scorer("qsit-nano", device="cpu")
        return score_on_ray(names, scorer, out, address=cluster.address, workers=Workers(2, 2), on_unit=on_unit)

    try:
        if kind == "stop":
            try:
                score(stop)
            except KeyboardInterrupt:
                seen["table after the stop"] = os.path.exists(out)
                seen["times"] = {part.name: part.stat().st_mtime_ns for part in partial.glob("part-*")}
            done = score(lambda done, result: None)
        else:
            done = score(kill)
    finally:
        cluster.shutdown()
    print(json.dumps(seen | {"rows": done.rows, "failed": done.failed, "units": done.units}))


if __name__ == "__main__":
    main(*sys.argv[1:])
