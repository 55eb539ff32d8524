"""Workers on a Ray cluster: actors, which Ray places, and for which it lets the cluster grow."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Final

from medfocus_bench.engine.protocol import THREADS, Engine, Lost, Output, Unit, Work
from medfocus_bench.engine.tasks import Task, Tasks, with_trace
from medfocus_bench.errors import InputError, require

_RUN_NUMBERS: Final = count()


class RayWorkers(Engine):
    """Ray actors of one core, and `gpus` GPUs, that take a unit each.

    Args:
        workers: How many actors are asked for; units go to those that Ray has placed.
        address: Of a running cluster, as `ray.init` takes it; by default `RAY_ADDRESS`, else this machine.
        gpus: Of each worker; a part of one is shared.

    Raises InputError where Ray is missing, and `run` where the cluster cannot be reached.
    """

    def __init__(self, workers: int, *, address: str | None = None, gpus: float = 0.0) -> None:
        require("ray")
        self.workers = workers
        self._address, self._gpus = address, gpus
        self._actors: list[Any] = []
        self._connected = False

    def run(self, work: Work[Unit, Output], units: Iterable[Unit]) -> Iterator[tuple[Unit, Output | Lost]]:
        import ray

        idle, busy = list(self._placed()), dict[Any, tuple[Any, Task[Any]]]()
        number, packed, tasks = next(_RUN_NUMBERS), [ray.put(work)], Tasks(units)
        try:
            while True:
                while idle and (task := tasks.next()) is not None:
                    actor = idle.pop()
                    outputs = actor.outputs.options(num_returns="streaming").remote(number, packed, task.unit)
                    busy[outputs] = actor, task
                if not busy:
                    return
                outputs = ray.wait(list(busy), num_returns=1, fetch_local=False)[0][0]
                actor, task = busy[outputs]
                kind, value = _next_of(outputs)
                if kind == "output" and task.is_new():
                    yield task.unit, value
                elif kind == "end":
                    del busy[outputs]
                    idle.append(actor)
                elif kind == "lost":
                    del busy[outputs]
                    idle.append(self._replaced(actor))
                    yield from tasks.lost(task, value)
        finally:
            if busy:
                self._end_actors()

    def close(self) -> None:
        import ray

        self._end_actors()
        if self._connected:
            ray.shutdown()
            self._connected = False

    def _connect(self) -> None:
        """Join the cluster, unless this process has done so."""
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = not (self._address or os.environ.get("RAY_ADDRESS"))
        options: dict[str, Any] = {"num_cpus": self.workers, "include_dashboard": False} if here else {}
        try:
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": dict.fromkeys(THREADS, "1")},
                **options,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "on this machine" if here else f"at {self._address or os.environ['RAY_ADDRESS']}"
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"Ray cannot be used {where}: {reason}") from None
        self._connected = True

    def _placed(self) -> list[Any]:
        """The actors; Ray holds what is sent to one until it has found a place for it."""
        if not self._actors:
            self._connect()
            self._actors = [self._new_actor() for _ in range(self.workers)]
        return self._actors

    def _new_actor(self) -> Any:
        import ray

        return ray.remote(num_cpus=1, num_gpus=self._gpus)(_Worker).remote()

    def _replaced(self, actor: Any) -> Any:
        """A new actor in place of a lost one, perhaps on another node."""
        self._actors[self._actors.index(actor)] = new = self._new_actor()
        return new

    def _end_actors(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


class _Worker:
    """An actor: it keeps the work of the run that it was asked for last."""

    def __init__(self) -> None:
        self._number = -1
        self._work: Any = None

    def outputs(self, number: int, packed: list[Any], unit: Any) -> Iterator[Any]:
        import ray

        if number != self._number:
            self._work = None  # what it holds goes before the next one comes
            self._work, self._number = ray.get(packed[0]), number
        yield from self._work(unit)


def _next_of(outputs: Any) -> tuple[str, Any]:
    """The next message of a worker, as those of `LocalWorkers`. Raises what its work raised."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return "output", ray.get(next(outputs))
    except StopIteration:
        return "end", None
    except RayActorError as error:
        return "lost", f"was lost ({' '.join(str(error).split())[:300]})"
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise with_trace(cause, str(error)) from None
