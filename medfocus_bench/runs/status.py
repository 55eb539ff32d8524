"""How far a run is: counts, pace and processes, from its files alone, while it runs or after.

Nothing is locked and nothing is written; a line that is half written is not counted yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medfocus_bench.errors import InputError
from medfocus_bench.lock import Holder, read_holder
from medfocus_bench.runs.records import FAILURES_NAME, Failure, RecordFiles, read_failures
from medfocus_bench.runs.settings import SETTINGS_NAME, read_settings
from medfocus_bench.runs.shards import Shard, Shards
from medfocus_bench.runs.wanted import WANTED_NAME, WantedPart, read_wanted
from medfocus_bench.storage import open_regular

FILTER: Final = "causal filter"

_BLOCK: Final = 2**20


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One method, LVLM and split, all shards together.

    `samples` and `pending` are None where the run is of a version that did not write down what it wants.
    `pace` is in samples a second, since the turn of the part came, and `seconds_left` the time at that pace;
    both None where nobody knows. `states` counts the shards, or the one folder, by what happens there: done,
    running, perhaps running (on another host, which cannot be asked), waits (for its turn), stopped, unknown.
    """

    method: str
    lvlm: str
    split: str
    samples: int | None
    done: int
    failed: int
    pending: int | None
    pace: float | None
    seconds_left: float | None
    states: dict[str, int]


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process that has the lock of some methods, of a shard where the run is split.

    `runs` is None where it is on another host, which cannot be asked from here.
    """

    holder: Holder
    runs: bool | None
    methods: tuple[str, ...]
    shard: str | None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The parts of a run, who has its locks, and by method the shards that have not begun."""

    run: Path
    parts: tuple[PartStatus, ...]
    processes: tuple[ProcessStatus, ...]
    missing: dict[str, tuple[Shard, ...]]

    @property
    def is_done(self) -> bool:
        """Whether nothing is pending, and nobody is at it any more."""
        finished = not any(part.pending for part in self.parts) and not self.missing
        return finished and not any(process.runs for process in self.processes)


@dataclass(frozen=True, slots=True)
class _Place:
    """The folder of a method, in a shard or not."""

    folder: Path
    shard: Shard | None
    holder: Holder | None

    @property
    def runs(self) -> bool | None:
        return False if self.holder is None else self.holder.runs


@dataclass(frozen=True, slots=True)
class _Counted:
    """The counts of a part in one place; `samples` is None where nobody wrote it down."""

    key: tuple[str, str, str]
    place: _Place
    samples: int | None
    done: int
    failed: int
    pace: float | None
    state: str
    called: float


def run_status(run: str | Path) -> RunStatus:
    """The status of a run, of one method in it, of one shard, or of records of the causal filter.

    Raises InputError where there is no such thing, and where a file in it is damaged.
    """
    run = Path(run)
    places = list(_places(run))
    if not places:
        return _filter_status(run)
    counted = [part for place in places for part in _counted(place)]
    keys = dict.fromkeys(part.key for part in counted)
    parts = [_together([part for part in counted if part.key == key]) for key in keys]
    missing = {}
    for name in dict.fromkeys(place.folder.name for place in places):
        begun = [place.shard for place in places if place.folder.name == name and place.shard]
        if begun and (absent := begun[0].others(begun)):
            missing[name] = absent
    return RunStatus(run, tuple(parts), tuple(_processes(places)), missing)


def _places(run: Path) -> Iterator[_Place]:
    """The folders of methods that begin in `run`, or that it is itself, and those in its shards."""
    shards = Shards.of(run)
    above: list[tuple[Path, Shard | None]] = [(run, None)]
    if shards is not None:
        above += [(folder, Shard(number, shards.count)) for number, folder in shards.folders.items()]
    for parent, shard in above:
        inside = sorted(parent.iterdir()) if parent.is_dir() else []
        for folder in [run, *inside] if parent == run else inside:
            if any((folder / name).is_file() for name in (SETTINGS_NAME, WANTED_NAME)):
                yield _Place(folder, shard, read_holder(folder))


def _processes(places: Iterable[_Place]) -> Iterator[ProcessStatus]:
    held: dict[tuple[Holder, Shard | None], list[str]] = {}
    for place in places:
        if place.holder is not None:
            held.setdefault((place.holder, place.shard), []).append(place.folder.name)
    for (holder, shard), methods in held.items():
        name = None if shard is None else f"{shard.number}/{shard.count}"
        yield ProcessStatus(holder, holder.runs, tuple(methods), name)


def _counted(place: _Place) -> Iterator[_Counted]:
    """The parts in the folder of a method; those of earlier versions by their files."""
    written = read_wanted(place.folder)
    failures = read_failures(place.folder)
    known = {part.key: part for part in written.parts} if written else {}
    named = dict.fromkeys([*known, *((failure.lvlm, failure.split) for failure in failures)])
    named |= dict.fromkeys(_recorded(place.folder, {RecordFiles.of(place.folder, *key) for key in named}))
    for key in named:
        yield _counted_part(place, key, known.get(key), [f for f in failures if (f.lvlm, f.split) == key])


def _recorded(folder: Path, known: Collection[RecordFiles]) -> Iterator[tuple[str, str]]:
    """The LVLM and the split of each file of records that is not `known`."""
    unknown = [files for files in RecordFiles.all_of(folder) if files not in known]
    if not unknown or not (folder / SETTINGS_NAME).is_file():
        return
    lvlms = {name.rpartition(" ")[0] for name in read_settings(folder).parts}
    for files in unknown:
        lvlm, _, split = files.lines.stem.rpartition("-")
        named = [one for one in lvlms if RecordFiles.of(folder, one, split) == files]
        yield (named[0] if named else lvlm), split


def _counted_part(
    place: _Place, key: tuple[str, str], wanted: WantedPart | None, failures: Sequence[Failure]
) -> _Counted:
    lines = RecordFiles.of(place.folder, *key).lines
    records = _complete_lines(lines)
    name = place.folder.name, *key
    if wanted is None:
        state = {True: "running", None: "perhaps running", False: "unknown"}[place.runs]
        return _Counted(name, place, None, records, len(failures), None, state, 0.0)
    done = min(max(0, records - wanted.others), wanted.samples)
    failed = min(max(0, len(failures) - wanted.other_failures), wanted.samples - done)
    pace = _pace(lines, wanted, done - wanted.had, failed)
    state = _state(place, wanted, wanted.samples - done - failed)
    return _Counted(name, place, wanted.samples, done, failed, pace, state, wanted.called)


def _state(place: _Place, wanted: WantedPart, pending: int) -> str:
    if pending == 0:
        return "done"
    if place.runs is False or wanted.turn is None:
        return "stopped"
    if wanted.turn == "comes":
        return "waits"
    return "running" if place.runs else "perhaps running"


def _pace(lines: Path, wanted: WantedPart, made: int, failed: int) -> float | None:
    """Samples a second from the beginning of a part to its last record, by the times of the files."""
    if wanted.began is None:
        return None
    tried = _changed(lines.with_name(FAILURES_NAME)) > wanted.began  # failures of before are forgotten
    count = made + (failed if tried else 0)
    last = lines if made > 0 else lines.with_name(FAILURES_NAME)
    seconds = _changed(last) - wanted.began
    return count / seconds if count > 0 and seconds > 0 else None


def _together(parts: Sequence[_Counted]) -> PartStatus:
    """One part of a run from its places: the shards, and the run itself where it was begun or finished so.

    The kind that was called last wants all that the other one does not hold.
    """
    method, lvlm, split = parts[0].key
    last = max(parts, key=lambda part: part.called).place.shard is None
    wanting = [part for part in parts if (part.place.shard is None) == last]
    held = sum(part.done for part in parts if (part.place.shard is None) != last)
    wanted = [part.samples for part in wanting if part.samples is not None]
    samples = sum(wanted) + held if len(wanted) == len(wanting) else None
    done, failed = held + sum(part.done for part in wanting), sum(part.failed for part in wanting)
    at_it = [part for part in wanting if part.state in ("running", "perhaps running")]
    paces = [part.pace for part in at_it or wanting if part.pace is not None]
    return PartStatus(
        method,
        lvlm,
        split,
        samples,
        done,
        failed,
        None if samples is None else samples - done - failed,
        sum(paces) if at_it and paces else (sum(paces) / len(paces) if paces else None),
        max((left for part in at_it if (left := _left(part)) is not None), default=None),
        dict(Counter(part.state for part in wanting)),
    )


def _left(part: _Counted) -> float | None:
    """The seconds that a part still needs."""
    if part.pace is None or part.samples is None:
        return None
    return (part.samples - part.done - part.failed) / part.pace


def _complete_lines(path: Path) -> int:
    """How many lines of a file are whole; 0 where there is no file."""
    count = 0
    try:
        with open_regular(path) as file:
            while block := file.read(_BLOCK):
                count += block.count(b"\n")
    except FileNotFoundError:
        return 0
    return count


def _changed(path: Path) -> float:
    """When a file was last written to; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _filter_status(out: Path) -> RunStatus:
    """Of records of the causal filter: a file, or all in a folder."""
    from medfocus_bench.counterfactual.records import read_failures, read_verifications

    files = sorted(out.glob("*.jsonl")) if out.is_dir() else [out]
    parts, processes = [], []
    for file in files:
        holder = read_holder(file)
        records = read_verifications(file) if file.is_file() else []
        if not records:
            continue
        first, failed = records[0], len(read_failures(file))
        done = len({record.key for record in records})
        runs = False if holder is None else holder.runs
        state = {True: "running", None: "perhaps running", False: "unknown"}[runs]
        where = f"{first.source} {first.mode}"
        parts.append(PartStatus(FILTER, first.lvlm, where, None, done, failed, None, None, None, {state: 1}))
        if holder is not None:
            processes.append(ProcessStatus(holder, holder.runs, (file.name,), None))
    if not parts:
        raise InputError(
            f"{out}: holds no run; give the folder that `attribute` wrote, that of a method in it, or "
            "records of `verify`"
        )
    return RunStatus(out, tuple(parts), tuple(processes), {})
