"""Ray: the batches of a step as tasks of a Ray cluster, one of this machine's own or one that is running (RAY_ADDRESS).

All machines must see the same folders under the same paths, and have this project installed.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from functools import partial

from pipelines.executors import AHEAD, cores, in_order, work_on
from prep.item import Item
from prep.options import UserError
from prep.step import Step, batched
from prep.store import Store

RETRIES = 5  # how often a batch is given to another worker when its worker or machine is lost


def ray_tasks(step: Step, items: Iterable[Item], store: Store, workers: int = 0) -> Iterator[Item]:
    """Spread the batches over a Ray cluster; `workers` is how many work at once, 0 = as many as the cluster has cores.

    A step that computes on a GPU gets one for each task. A batch whose worker is lost is done again elsewhere: steps write whole files
    and know what is done, so nothing is half done or done twice.
    """
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; install lora-atelier[ray], or leave --executor away") from None
    started = not ray.is_initialized()
    if started:
        address = os.environ.get("RAY_ADDRESS")
        size = {} if address else {"num_cpus": workers or cores()}
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR", **size)
    try:
        wanted = workers or int(ray.cluster_resources().get("CPU", 1))
        task = ray.remote(num_cpus=1, num_gpus=step.gpus, max_retries=RETRIES)(work_on)
        packed = ray.put(pickle.dumps((step, Store(store.folder.resolve()))))

        def submit(batch: list[Item]) -> partial[list[Item]]:
            return partial(_result, task.remote(packed, batch))

        yield from in_order(step, batched(items, step.batch), wanted * AHEAD, submit)
    finally:
        if started:
            ray.shutdown()


def _result(reference: object) -> list[Item]:
    """Wait for a batch; the error of a step is raised as it was, not wrapped in Ray's report of it."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
