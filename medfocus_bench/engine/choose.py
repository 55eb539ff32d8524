"""Engines by name."""

from __future__ import annotations

import os
from typing import Final

from medfocus_bench.engine.devices import AUTO, SPREAD, best_device
from medfocus_bench.engine.local import LocalWorkers
from medfocus_bench.engine.protocol import Engine, InProcess
from medfocus_bench.errors import InputError

ENGINES: Final = ("in-process", "local", "ray")


def open_engine(
    name: str | None = None,
    workers: int = 1,
    *,
    device: str = "cpu",
    address: str | None = None,
    gpus_per_worker: float = 0.0,
) -> Engine:
    """The engine of a name; use it in a `with` block, which ends its workers.

    Args:
        name: `in-process`, `local` (processes on this machine) or `ray`; by default the first for one worker
            and the second for more.
        workers: How many units are worked on at a time.
        device: Of the LVLMs, as `load_lvlm` takes it; local workers on `cuda` share out the GPUs of this
            machine, one or (`auto-map`) several for each.
        address: Of a Ray cluster.
        gpus_per_worker: GPUs that a Ray worker asks for; by default one where `device` is a GPU.

    Raises InputError for settings that do not go together, and where Ray cannot be used.
    """
    if workers < 1:
        raise InputError(f"--workers {workers}: give at least one")
    name = name or ("in-process" if workers == 1 else "local")
    if name not in ENGINES:
        raise InputError(f"no engine {name!r}; there are {', '.join(ENGINES)}")
    if name != "ray" and (address is not None or gpus_per_worker):
        raise InputError("--address and --gpus-per-worker go with --engine ray")
    if name == "in-process":
        if workers != 1:
            raise InputError(f"--workers {workers}: --engine in-process has one; give --engine local")
        return InProcess()
    if name == "local":
        return LocalWorkers(workers, gpus=_shared_gpus(device, workers))
    from medfocus_bench.engine.on_ray import RayWorkers

    gpus = gpus_per_worker or (1.0 if _kind(device) == "cuda" else 0.0)
    return RayWorkers(workers, address=address, gpus=gpus)


def _kind(device: str) -> str:
    """The kind of a device, of the best one of this machine for one that is not named."""
    return best_device() if device in (AUTO, SPREAD) else device.partition(":")[0]


def _shared_gpus(device: str, workers: int) -> list[str]:
    """The GPUs that each worker sees, in turn, where they share those of this machine."""
    if workers == 1 or device.startswith("cuda:") or _kind(device) != "cuda":
        return []
    gpus = _visible_gpus()
    if device != SPREAD:
        return gpus
    if len(gpus) < workers:
        raise InputError(
            f"--device {SPREAD} spreads each LVLM over GPUs of its own, and {len(gpus)} are too few for "
            f"--workers {workers}; give fewer workers"
        )
    return [",".join(gpus[number::workers]) for number in range(workers)]


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return named.split(",")
    try:
        import torch
    except ImportError:
        return []
    return [str(number) for number in range(torch.cuda.device_count())]
