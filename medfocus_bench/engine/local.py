"""Worker processes on this machine.

Each is spawned, uses one thread, and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pickle import PicklingError
from time import monotonic
from typing import Any, Final

from medfocus_bench.engine.protocol import THREADS, Engine, Lost, Output, Unit, Work
from medfocus_bench.engine.tasks import Messages, Task, Tasks, with_trace
from medfocus_bench.errors import InputError

_PATIENCE: Final = 5.0
"""Seconds that idle workers have to end when they are told to."""

_STOP: Final = b"stop"
_IMPORTABLE: Final = "put classes of your own into a module that can be imported"


class LocalWorkers(Engine):
    """Worker processes that take a unit each.

    A worker that is lost (killed, out of memory) is replaced, and its unit done again. `gpus`: what each
    worker sees of the machine's GPUs, in turn.
    """

    def __init__(self, workers: int, *, gpus: Sequence[str] = ()) -> None:
        self.workers, self._run = workers, 0
        self._slots = [_Slot(gpus[n % len(gpus)] if gpus else None) for n in range(workers)]

    def run(self, work: Work[Unit, Output], units: Iterable[Unit]) -> Iterator[tuple[Unit, Output | Lost]]:
        tasks = Tasks(units)
        self._run = this_run = self._run + 1
        self._drop_tasks()  # of a run that was left half-way
        for slot in self._slots:
            slot.has_work = False
        try:
            while busy := self._assign(work, tasks):
                for connection in wait(list(busy)):
                    yield from self._receive(busy[connection], tasks)
                    if self._run != this_run:
                        raise RuntimeError("the engine was given other work meanwhile")
        finally:
            if self._run == this_run:
                self._drop_tasks()  # an error, or nobody wants the rest

    def close(self) -> None:
        self._drop_tasks()
        for slot in self._slots:
            slot.dismiss()
        deadline = monotonic() + _PATIENCE
        for slot in self._slots:
            slot.join(deadline - monotonic())

    def _drop_tasks(self) -> None:
        for slot in self._slots:
            if slot.task is not None:
                slot.kill()

    def _assign(self, work: Work[Any, Any], tasks: Tasks[Any]) -> dict[Any, _Slot]:
        """Give every idle worker a unit; the workers that are busy after that, by their connections."""
        given = []
        for slot in self._slots:
            if slot.task is None:
                slot.task = tasks.next()
                given += [slot] if slot.task is not None else []
        for slot in given:  # all start before the first one is waited for
            slot.start()
        for slot in given:
            slot.send(work)
        return {slot.connection: slot for slot in self._slots if slot.task is not None}

    def _receive(self, slot: _Slot, tasks: Tasks[Any]) -> Iterator[tuple[Any, Any]]:
        """Take the next message of a worker, and give on the output that it brings."""
        task = slot.task
        assert task is not None
        try:
            kind, value = slot.receive()
        except (EOFError, OSError):
            slot.bury()
            yield from tasks.lost(task, _how(slot.exit_code))
            return
        if kind == "error":
            raise with_trace(*value)
        if kind == "end":
            slot.task = None
        elif kind == "notice":
            warnings.warn(value, stacklevel=2)
        elif kind == "output" and task.is_new():
            yield task.unit, value


@dataclass(slots=True)
class _Slot:
    """The place of a worker: its process, if it runs, and its task, if it has one."""

    gpu: str | None = None
    process: BaseProcess | None = None
    connection: Connection | None = None
    task: Task[Any] | None = None
    has_work: bool = False
    exit_code: int | None = None
    _ready: bool = field(default=False, repr=False)

    def start(self) -> None:
        if self.process is not None:
            return
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _environment(self.gpu), _without_interrupts():
            process.start()
        theirs.close()
        self.process, self.connection, self.has_work, self._ready = process, ours, False, False

    def send(self, work: Work[Any, Any]) -> None:
        """Send the task, and first the work if it is new; that a worker is lost is noticed by `receive`.

        Raises InputError for what cannot be sent to another process.
        """
        assert self.connection is not None
        assert self.task is not None
        self.task.seen = 0
        messages = [_packed("unit", self.task.unit)]
        if not self.has_work:
            messages.insert(0, _packed("work", work))
        with suppress(OSError):
            for message in messages:
                self.connection.send_bytes(message)
        self.has_work = True

    def receive(self) -> tuple[str, Any]:
        """The next message. Raises EOFError for a lost worker, InputError for one that cannot begin."""
        assert self.connection is not None
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            if not self._ready and not self._was_killed():
                self.kill()
                raise InputError(
                    "no worker process could be started; in a script, call this below "
                    "`if __name__ == '__main__':`"
                ) from None
            raise
        self._ready = True
        return kind, value

    def _was_killed(self) -> bool:
        assert self.process is not None
        self.process.join(_PATIENCE)
        return (self.process.exitcode or 0) < 0

    def bury(self) -> None:
        """Clear away a lost worker."""
        assert self.process is not None
        self.process.join(_PATIENCE)
        self.exit_code = self.process.exitcode
        self.kill()

    def kill(self) -> None:
        """End the worker now."""
        if self.process is not None and self.connection is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
            self.connection.close()
        self.process = self.connection = self.task = None

    def dismiss(self) -> None:
        """Tell an idle worker to end."""
        if self.connection is not None:
            with suppress(OSError):
                self.connection.send_bytes(_STOP)

    def join(self, seconds: float) -> None:
        if self.process is not None:
            self.process.join(max(0.0, seconds))
        self.kill()


def _packed(kind: str, value: Any) -> bytes:
    try:
        return bytes(ForkingPickler.dumps((kind, value)))
    except (AttributeError, PicklingError, TypeError) as error:
        raise InputError(
            f"a worker process cannot be sent this: {error}; give LVLMs by name, and {_IMPORTABLE}"
        ) from None


def _serve(connection: Connection) -> None:
    """The life of a worker: take units until there are no more, and send each output when it is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    messages, work = Messages(), None
    connection.send(("ready", None))
    with suppress(EOFError, OSError):  # the driver is gone
        while (packed := connection.recv_bytes()) != _STOP:
            answers = _answers(packed, work, messages)
            for kind, value in answers:
                if kind == "work":
                    work = value
                else:
                    connection.send((kind, value))


def _answers(packed: bytes, work: Any, messages: Messages) -> Iterator[tuple[str, Any]]:
    """The answers of a worker to a message: the work, or all outputs of the unit, that it brings."""
    try:
        kind, value = ForkingPickler.loads(packed)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        yield "error", (InputError(f"a worker process cannot load its work: {reason}; {_IMPORTABLE}"), "")
        return
    if kind == "work":
        yield kind, value
        return
    try:
        yield from messages.of(work(value))
    except Exception as error:
        yield "error", (error, traceback.format_exc())
    else:
        yield "end", None


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _how(exit_code: int | None) -> str:
    """How a worker ended, in words."""
    if exit_code == -signal.SIGKILL:
        return "was killed, as it is where memory runs out (try fewer --workers or a smaller --batch)"
    if exit_code is not None and exit_code < 0:
        return f"was ended by signal {-exit_code}"
    return "ended" if exit_code is None else f"ended with status {exit_code}"


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the block ends, and for ever in a process that starts within it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(gpu: str | None) -> Iterator[None]:
    """The environment of a worker that starts within the block: one thread, one GPU."""
    wanted = dict.fromkeys(THREADS, "1")
    if gpu is not None:
        wanted["CUDA_VISIBLE_DEVICES"] = gpu
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
