"""Joining pointers to licensed sources with the user's own copies: (source, index) to boxes and picture.

No pixel is copied: an attached row refers to the file below the user's root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from medfocus_bench.data.benchmark import UNVERSIONED, Benchmark, read_rows
from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.images import picture_at, read_picture
from medfocus_bench.data.manifest import Attachment, read_manifest
from medfocus_bench.data.questions import MODES
from medfocus_bench.data.rows import complete_row, split_of
from medfocus_bench.data.sources.protocol import Annotation, Annotations, Skip, Split, split_of_index
from medfocus_bench.data.sources.reading import LocatedBoxes, check_copy, locate
from medfocus_bench.data.sources.registry import installed_sources, open_source
from medfocus_bench.data.writing import check_vacant, write_benchmark, write_rows
from medfocus_bench.errors import InputError
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.storage import atomic_folder
from medfocus_bench.text import same

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

BenchmarkRow = Mapping[str, Any]
Placed = tuple[str, str, BenchmarkRow]
"""A row with its place in what was read, and its split."""
AnyDataset = TypeVar("AnyDataset", "Dataset", "IterableDataset")

_KEYS: Final = ("source", "index", "mode")
"""The columns by which a row is joined."""
_JOINED: Final = frozenset(
    ("patient_id", "image", "image_ref", "width", "height", "finding", "question", "boxes", "anatomy")
)
"""The columns that joining fills, see `complete_row`."""


class NotJoinedError(InputError):
    """A row whose question cannot be found, or whose picture or boxes cannot be used."""


class NothingJoinedError(InputError):
    """None of the rows could be joined; `unmatched` says of each why."""

    def __init__(self, root: Path, unmatched: Sequence[Skip]) -> None:
        self.unmatched = tuple(unmatched)
        super().__init__(
            f"{root}: none of {len(unmatched):,} rows can be joined; the first: {unmatched[0]}; "
            f"`medfocus-bench data doctor --root {root}` shows all that is missing"
        )


class Joiner:
    """Finds the question of a row below a root; every table and every picture's header is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._annotations: dict[tuple[str, Split], Annotations] = {}
        self._unusable: dict[tuple[str, Split], str] = {}
        self._regions: dict[tuple[str, int], LocatedBoxes | InputError] = {}

    def annotations(self, source: str, split: Split) -> Annotations:
        """The questions of a split; the first call looks at the header of every picture.

        Raises NotJoinedError where nothing of it can be joined: the table is not there, or damaged, or the
        pictures are another copy than the annotated one.
        """
        if (source, split) in self._unusable:
            raise NotJoinedError(self._unusable[source, split])
        if (source, split) not in self._annotations:
            try:
                found = open_source(source).annotations(self.root, split)
                check_copy(found, self.root, self._located)
                self._annotations[source, split] = found
            except InputError as error:
                self._unusable[source, split] = error.problems[0]
                raise NotJoinedError(error.problems) from None
        return self._annotations[source, split]

    def find(self, source: str, index: int) -> tuple[Annotation, LocatedBoxes]:
        """The question and its region. Raises NotJoinedError with the reason why it is missing."""
        found = self.annotations(source, split_of_index(index))
        skip = found.skip_of.get(index)
        if skip is not None:
            raise NotJoinedError(f"{skip.place}: {skip.reason}")
        if index not in found.by_index:
            raise NotJoinedError(f"{source} has {found.found:,} questions, none of them {index}")
        annotation = found.by_index[index]
        try:
            return annotation, self._located(annotation, self.root)
        except InputError as error:
            raise NotJoinedError(error.problems) from None

    def _located(self, annotation: Annotation, root: Path) -> LocatedBoxes:
        """As `locate`, once a question."""
        key = annotation.source, annotation.index
        if key not in self._regions:
            try:
                self._regions[key] = locate(annotation, root)
            except InputError as error:
                self._regions[key] = error
        found = self._regions[key]
        if isinstance(found, InputError):
            raise found
        return found

    def row(self, row: BenchmarkRow) -> dict[str, Any]:
        """A row with all that its question says; one of a source that needs no joining as it is."""
        source = row["source"]
        if source not in installed_sources():
            return dict(row)
        annotation, region = self.find(source, row["index"])
        asked = row.get("finding")
        if asked is not None and same(asked) != same(annotation.finding):
            raise NotJoinedError(
                f"{annotation.place}: is about {annotation.finding!r}, the row about {row['finding']!r}; "
                "they are of different versions of the table"
            )
        anatomy = [{"concept": name, "box": box[0].tolist()} for name, box in sorted(region.anatomy.items())]
        return complete_row(
            row,
            finding=annotation.finding,
            patient_id=annotation.patient_id,
            size=(region.width, region.height),
            boxes=region.boxes,
            image_ref=annotation.image_ref,
            anatomy=anatomy or None,
        )

    def notices(self) -> list[str]:
        """Sources whose number of questions is not the published one."""
        published = {key: open_source(key[0]).expected[key[1]] for key in self._annotations}
        return [
            f"{source}: {found.found:,} questions where {published[source, split]:,} were published; "
            "an index may name another question "
            f"(`medfocus-bench data doctor --root {self.root}` looks closer)"
            for (source, split), found in self._annotations.items()
            if found.found != published[source, split]
        ]


@dataclass(frozen=True, slots=True)
class Attached:
    """A benchmark that was written, the rows that could not be joined, and what the user should know."""

    benchmark: Benchmark
    unmatched: tuple[Skip, ...]
    notices: tuple[str, ...]


def write_attached(
    rows: Iterable[Placed],
    root: Path,
    out: Path,
    *,
    name: str,
    version: str,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Attached:
    """Join rows and write the benchmark of those that can be joined.

    Raises NothingJoinedError if none can, and InputError if a table is not there or `out` holds something
    already.
    """
    check_vacant(out, overwrite=overwrite)
    joiner = Joiner(root)
    splits: dict[str, list[dict[str, Any]]] = {}
    unmatched: list[Skip] = []
    rows = list(rows)
    for place, split, row in progress(rows, "Joining", len(rows)):
        try:
            splits.setdefault(split, []).append(joiner.row(row))
        except NotJoinedError as error:
            unmatched.append(Skip(place, str(error.problems[0]), row["index"]))
    splits = {split: kept for split, kept in splits.items() if kept}
    if not splits:
        raise NothingJoinedError(root, unmatched)
    attachment = Attachment(root, licensed=True)
    written = write_benchmark(
        out, splits, name=name, version=version, attachment=attachment, overwrite=overwrite
    )
    return Attached(written, tuple(unmatched), tuple(joiner.notices()))


def attach_folder(
    folder: str | Path,
    root: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Attached:
    """The pointers in a folder, joined with the copies below `root`, as a local benchmark in `out`.

    Name and version are those of the folder's manifest, if it has one. Rows of open sources, which need no
    joining, are left out. Raises InputError as `write_attached`, and for a folder without pointers.
    """
    folder, root, out = Path(folder), Path(root), Path(out)
    manifest = read_manifest(folder)
    rows = [
        (str(row["sample_id"]), split, {column: row.get(column) for column in SCHEMA.names})
        for _, split, row in read_rows(folder)
        if row["source"] in installed_sources()
    ]
    if not rows:
        raise InputError(
            f"{folder}: points to none of {', '.join(installed_sources())}, so there is nothing to attach"
        )
    return write_attached(
        rows,
        root,
        out,
        name=manifest.name if manifest else folder.resolve().name,
        version=manifest.version if manifest else UNVERSIONED,
        overwrite=overwrite,
        progress=progress,
    )


def write_pointers(rows: Iterable[BenchmarkRow], out: Path, *, overwrite: bool = False) -> dict[str, int]:
    """Write pointers as `<config>/<split>.parquet`: the number of rows by file."""
    check_vacant(out, overwrite=overwrite)
    files: dict[str, list[BenchmarkRow]] = {}
    for row in rows:
        files.setdefault(f"{row['source']}/{split_of(row)}.parquet", []).append(row)
    with atomic_folder(out) as work:
        for name, members in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            write_rows(work / name, members)
    return {name: len(members) for name, members in sorted(files.items())}


def attach(dataset: AnyDataset, root: str | Path) -> AnyDataset:
    """The rows of a `datasets` dataset with boxes, size, finding, question and decoded picture, on access.

    Nothing is copied or read ahead, so a streamed dataset stays a stream. A format that the dataset has
    (`with_format("torch")`) holds for what is joined too. `datasets` replaces a transform by the next format,
    so give the format first, then attach; on a stream either order does. A row that cannot be joined raises
    NotJoinedError, a picture that cannot be decoded PictureError, each with its file, when it is reached.
    Raises InputError for a dataset with a transform of its own.
    """
    from datasets import IterableDataset
    from datasets.formatting import get_formatter

    label = (dataset.features or {}).get("mode")
    joining = _Joining(Joiner(Path(root)), tuple(getattr(label, "names", MODES)))
    if isinstance(dataset, IterableDataset):
        return dataset.map(joining.row)
    given = dataset.format
    if given["type"] == "custom":
        raise InputError("the dataset has a transform already, which attaching would replace; attach first")
    if given["type"] in (None, "python"):
        return dataset.with_transform(joining.batch)
    formatter = get_formatter(given["type"], features=dataset.features, **given["format_kwargs"])
    if not hasattr(formatter, "recursive_tensorize"):
        raise InputError(f"the format {given['type']!r} has no place for pictures; attach without a format")
    return dataset.with_transform(replace(joining, shape=formatter.recursive_tensorize).batch)


@dataclass(frozen=True, slots=True)
class _Joining:
    """The join of rows as `datasets` hands them over; `modes` are the names of the label `mode`, in order.

    `shape` makes of the columns of a batch what the format of the dataset asks for.
    """

    joiner: Joiner
    modes: tuple[str, ...]
    shape: Callable[[dict[str, list[Any]]], dict[str, Any]] | None = None

    def batch(self, columns: Mapping[str, list[Any]]) -> dict[str, Any]:
        missing = [name for name in _KEYS if name not in columns]
        if missing and not _JOINED.isdisjoint(columns):
            raise NotJoinedError(
                f"rows without {', '.join(missing)} cannot be joined; keep the columns {', '.join(_KEYS)}"
            )
        joined: dict[str, Any] = dict(columns)
        if not missing:
            count = len(columns["index"])
            rows = [self.row({name: values[n] for name, values in columns.items()}) for n in range(count)]
            joined = {name: [row[name] for row in rows] for name in (rows[0] if rows else columns)}
        return joined if self.shape is None else self.shape(joined)

    def row(self, row: BenchmarkRow) -> dict[str, Any]:
        from PIL import Image

        # A formatted stream hands over numbers as arrays of no dimension.
        plain = {
            name: value.item() if getattr(value, "ndim", 1) == 0 else value for name, value in row.items()
        }
        mode = plain["mode"]
        if not isinstance(mode, str):
            if not isinstance(mode, int) or not 0 <= mode < len(self.modes):
                raise NotJoinedError(f"mode {mode} is not one of the labels {', '.join(self.modes)}")
            plain["mode"] = self.modes[mode]
        joined = self.joiner.row(plain)
        joined["mode"] = mode  # labels stay what they are in the dataset
        if joined.get("image") is None and joined.get("image_ref") is not None:
            picture = read_picture(picture_at(self.joiner.root, joined["image_ref"]))
            joined["image"] = Image.fromarray(picture)
        return joined
