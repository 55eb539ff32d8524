"""Commands in processes of their own, which a test may kill, and what they leave behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.forkserver import ForkServer
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from medfocus_bench.runs.records import RecordFiles

PATIENCE = 600.0
"""Seconds after which a test gives up on another process; on an idle machine none takes a tenth of it."""

_STARTING = get_context("forkserver")
_STARTING.set_forkserver_preload(["tests.faults.preloaded"])


@dataclass
class Driver:
    """A command that runs in a process of its own, from `start`."""

    process: BaseProcess
    folder: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def end(self) -> tuple[int, str, str]:
        """Its exit status (the negative signal that killed it), stdout and stderr, once it has ended."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, f"{self.pid} goes on and on"
        return self.process.exitcode, self.said("out"), self.said("err")

    def said(self, stream: str) -> str:
        path = self.folder / stream
        return path.read_text() if path.exists() else ""

    def kill(self) -> tuple[int, str, str]:
        self.process.kill()
        return self.end()

    def interrupt(self) -> tuple[int, str, str]:
        """End it as Ctrl-C does: its workers are interrupted, too."""
        os.killpg(self.pid, signal.SIGINT)
        return self.end()


def start(folder: Path, *words: object, before: Callable[[], Any] | None = None) -> Driver:
    """`medfocus-bench WORDS` in a new process; `before` is called there first, and must be importable."""
    folder.mkdir(parents=True, exist_ok=True)
    process = _STARTING.Process(target=_command, args=(folder, [str(word) for word in words], before))
    process.start()
    return Driver(process, folder)


def run(folder: Path, *words: object, before: Callable[[], Any] | None = None) -> tuple[int, str, str]:
    return start(folder, *words, before=before).end()


def _command(folder: Path, words: list[str], before: Callable[[], Any] | None) -> None:
    from medfocus_bench.cli.main import main

    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server of forks ignores it
    sys.argv = ["medfocus-bench", *words]
    if before is not None:
        before()
    main()


def wait_until(fact: Callable[[], Any], driver: Driver | None = None) -> Any:
    """The value of `fact` once it is true; without it where the driver ends first."""
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        if driver is not None and not driver.process.is_alive():
            return fact()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return found


def written(out: Path) -> int:
    """Bytes of records and maps in the folder of a run."""
    return sum(path.stat().st_size for kind in ("*.jsonl", "*.maps") for path in out.glob(f"*/{kind}"))


def lines(out: Path) -> int:
    """Records in the folder of a run."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*/*.jsonl"))


def children(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have started."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return set()
    found = {int(child) for child in listed.split()}
    return found.union(*(children(child) for child in found))


def workers(pid: int) -> set[int]:
    """Those of them that are spawned workers."""
    return {child for child in children(pid) if b"spawn_main" in _words(child)}


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def gone(pids: Iterable[int]) -> bool:
    """Whether none of the processes runs."""
    return not any(_state(pid) not in ("Z", "") for pid in pids)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def content(out: Path) -> dict[str, tuple[dict[str, Any], bytes]]:
    """The records of a run by method and sample, without seconds and places, each with its map's bytes."""
    found = {}
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        for files in RecordFiles.all_of(folder):
            for record in files.read():
                key = f"{folder.name} {files.lines.stem} {record.entry.sample_id}"
                assert key not in found, f"{key} is recorded twice"
                kept = record.model_dump(mode="json")
                kept["entry"]["cost"].pop("seconds")
                if kept["map"] is not None:
                    kept["map"].pop("offset")
                saliency = files.attribution(record).saliency
                found[key] = kept, b"" if saliency is None else saliency.tobytes()
    return found


def stop_server() -> None:
    """End the server of forks."""
    server: ForkServer = sys.modules["multiprocessing.forkserver"]._forkserver
    server._stop()
