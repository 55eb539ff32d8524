"""Workers on a Ray cluster: actors, which Ray places, and for which it lets the cluster grow."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import count
from time import monotonic
from typing import Any, Final

from medfocus_bench.engine.protocol import THREADS, Engine, Lost, Output, Unit, Work
from medfocus_bench.engine.tasks import ATTEMPTS, Messages, Task, Tasks, with_trace
from medfocus_bench.errors import InputError, Notice, require

_RUN_NUMBERS: Final = count()
_LOOK_SECONDS: Final = 1.0
"""Waiting is cut into such stretches, between which a signal is seen."""
_TELL_SECONDS: Final = 60.0
"""How long no worker is placed before that is told."""


class RayWorkers(Engine):
    """Ray actors of one core, and `gpus` GPUs, that take a unit each.

    Args:
        workers: How many actors are asked for; units go to those that Ray has found a place for, so that a
            cluster with room for fewer does all of the work.
        address: Of a running cluster, as `ray.init` takes it; by default `RAY_ADDRESS`, else this machine.
        gpus: Of each worker; a part of one is shared.

    Raises InputError where Ray is missing, and `run` where the cluster cannot be reached.
    """

    def __init__(self, workers: int, *, address: str | None = None, gpus: float = 0.0) -> None:
        require("ray")
        self.workers = workers
        self.elsewhere = bool(address or os.environ.get("RAY_ADDRESS"))
        self._address, self._gpus = address, gpus
        self._actors: list[Any] = []
        self._starting = dict[Any, Any]()
        self._failed = 0
        self._connected = self._told = False
        self._busy: dict[Any, tuple[Any, Task[Any]]] = {}

    def run(self, work: Work[Unit, Output], units: Iterable[Unit]) -> Iterator[tuple[Unit, Output | Lost]]:
        import ray

        if self._busy:
            self._end_actors()  # of a run that was left half-way
        idle, busy = self._placed(), dict[Any, tuple[Any, Task[Any]]]()
        self._busy = busy
        number, packed, tasks = next(_RUN_NUMBERS), [ray.put(work)], Tasks(units)
        try:
            while True:
                while idle and (task := tasks.next()) is not None:
                    actor = idle.pop()
                    outputs = actor.outputs.options(num_returns="streaming").remote(number, packed, task.unit)
                    busy[outputs] = actor, task
                if idle and not busy:
                    return
                waited = [*busy, *([] if idle else self._starting)]  # an idle one: nothing waits for more
                outputs = self._first(waited)
                if self._busy is not busy:
                    raise RuntimeError("the engine was given other work meanwhile")
                if outputs in self._starting:
                    idle += self._started(outputs)
                else:
                    yield from self._taken(outputs, idle, tasks)
        finally:
            if self._busy is busy:
                if busy:
                    self._end_actors()
                self._busy = {}

    def _taken(self, outputs: Any, idle: list[Any], tasks: Tasks[Any]) -> Iterator[tuple[Any, Any]]:
        """Take the next message of a worker, and give on the output that it brings."""
        actor, task = self._busy[outputs]
        kind, value = _next_of(outputs)
        if kind in ("end", "lost"):
            del self._busy[outputs]
        if kind == "end":
            idle.append(actor)
        elif kind == "lost":
            self._replace(actor)
            yield from tasks.lost(task, value)
        elif kind == "notice":
            warnings.warn(value, stacklevel=2)
        elif task.is_new():
            yield task.unit, value

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
                address="local" if here else self._address,  # never one that somebody else has started
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

    def _first(self, waited: list[Any]) -> Any:
        """The first of these that has something; a Notice says once what no worker is placed for."""
        import ray

        begun = monotonic()
        while not (ready := ray.wait(waited, num_returns=1, timeout=_LOOK_SECONDS, fetch_local=False)[0]):
            if len(self._starting) == self.workers and not self._told and monotonic() - begun > _TELL_SECONDS:
                self._told = True
                asked = f"1 core and {self._gpus:g} GPUs each for {self.workers} workers"
                there: Any = ray.cluster_resources()
                has = {name: there.get(name, 0) for name in ("CPU", "GPU")}
                warnings.warn(Notice(f"Ray has no place yet: {asked}; the cluster has {has}"), stacklevel=4)
        return ready[0]

    def _placed(self) -> list[Any]:
        """The actors that run; the others are asked for."""
        if not self._actors:
            self._connect()
            self._actors = [self._new_actor() for _ in range(self.workers)]
        starting = list(self._starting.values())
        return [actor for actor in self._actors if actor not in starting]

    def _new_actor(self) -> Any:
        import ray

        actor: Any = ray.remote(num_cpus=1, num_gpus=self._gpus)(_Worker).remote()
        self._starting[actor.ready.remote()] = actor
        return actor

    def _started(self, ready: Any) -> list[Any]:
        """The actor that has begun; none, and another one asked for, where it ended at once.

        Raises InputError where actor after actor does.
        """
        import ray
        from ray.exceptions import RayError

        actor = self._starting.pop(ready)
        try:
            ray.get(ready)
        except RayError as error:
            self._failed += 1
            if self._failed >= ATTEMPTS:
                reason = " ".join(str(error).split())[:300]
                raise InputError(
                    f"Ray's workers end as soon as they begin: {reason}; every node needs medfocus-bench in "
                    "the version of this process"
                ) from None
            self._replace(actor)
            return []
        self._failed = 0
        return [actor]

    def _replace(self, actor: Any) -> None:
        """Ask for a new actor in place of a lost one, perhaps on another node."""
        self._actors[self._actors.index(actor)] = self._new_actor()

    def _end_actors(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        self._starting = {}


class _Worker:
    """An actor: it keeps the work of the run that it was asked for last."""

    def __init__(self) -> None:
        self._messages = Messages()
        self._number = -1
        self._work: Any = None

    def ready(self) -> None:
        """Ends as soon as the actor runs."""

    def outputs(self, number: int, packed: list[Any], unit: Any) -> Iterator[Any]:
        import ray

        if number != self._number:
            self._work = None  # what it holds goes before the next one comes
            self._work, self._number = ray.get(packed[0]), number
        yield from self._messages.of(self._work(unit))


def _next_of(outputs: Any) -> tuple[str, Any]:
    """The next of a worker's messages; also ("end", None), and ("lost", how). Raises what its work raised."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        kind, value = ray.get(next(outputs))
    except StopIteration:
        return "end", None
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise with_trace(cause, str(error)) from None
    except RayError as error:  # the actor, its node, or what it had made
        return "lost", f"was lost ({' '.join(str(error).split())[:300]})"
    return kind, value
