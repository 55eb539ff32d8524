"""Write a submission folder, atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark
from medfocus_bench.errors import SubmissionError
from medfocus_bench.geometry import MapFrame
from medfocus_bench.storage import replace_folder
from medfocus_bench.submission.document import DOCUMENT_NAME, MAX_DOCUMENT_BYTES, parse_head
from medfocus_bench.submission.entry import to_entry
from medfocus_bench.submission.maps import MAPS_NAME, MapWriter, StoredType
from medfocus_bench.submission.schema import (
    SCHEMA_VERSION,
    AttributionEntry,
    MethodMetadata,
    SubmissionDocument,
    Submitter,
)

_Submitter = Submitter | Mapping[str, Any] | str


class SubmissionWriter:
    """Write `folder` as a submission to `benchmark`, one attribution at a time.

    Maps go to disk at once. The folder appears, complete and checked, when the block ends without an error.

    Args:
        folder: The submission.
        method: `MethodMetadata`, or a dictionary with its fields.
        benchmark: A loaded one, its folder or its name.
        submitters: One or a list of names, dictionaries or `Submitter`.
        frame: "image" where all maps cover the image without padding; attributions may say so themselves.
        stored: "float16" or "uint8" stores maps in less space, each divided by its largest magnitude first.
            One that was made float16 before is stored as it is: what it lost is lost.
        overwrite: Replace an existing submission.

    Raises SubmissionError at once for an existing folder, or a method or submitters that break the format, so
    that nothing is computed in vain.

    >>> import medfocus_bench as mb
    >>> benchmark = mb.load_benchmark("phantom", split="dev")
    >>> method = {"name": "mine", "family": "other", "version": "1", "description": "The expert boxes."}
    >>> with mb.SubmissionWriter("mine", method, benchmark, submitters="Ada") as writer:
    ...     for sample in benchmark.samples:
    ...         writer.add(mb.Attribution(sample.sample_id, boxes=sample.boxes))
    >>> mb.validate("mine", benchmark)
    []
    """

    def __init__(
        self,
        folder: str | Path,
        method: MethodMetadata | Mapping[str, Any],
        benchmark: BenchmarkLike,
        *,
        submitters: Sequence[_Submitter] | _Submitter,
        frame: MapFrame = "model",
        stored: StoredType | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._stored = stored
        self._overwrite = overwrite
        self._check_free()
        benchmark = load_benchmark(benchmark)
        listed = [submitters] if isinstance(submitters, (str, Mapping, Submitter)) else submitters
        self._head = {
            "schema_version": SCHEMA_VERSION,
            "method": _plain(method),
            "submitters": [{"name": s} if isinstance(s, str) else _plain(s) for s in listed],
            "benchmark": benchmark.reference(),
            "attributions": [],
        }
        self._document({"file": MAPS_NAME, "sha256": "0" * 64, "frame": frame})
        self._default_frame, self._frame = frame, frame
        self._benchmark = benchmark
        self._samples = {sample.sample_id: sample for sample in benchmark.samples}
        self._entries: dict[str, AttributionEntry] = {}
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._work = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f".{self.folder.name}."))
        self._maps = MapWriter(self._work / MAPS_NAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._maps.close()
            shutil.rmtree(self._work, ignore_errors=True)

    def add(self, attribution: Attribution) -> None:
        """Add the attribution of one sample.

        Raises SubmissionError, and adds nothing, for a sample that was added already or is not in the
        benchmark, and for an attribution that breaks the format: a box without area or out of the image, a
        map that is too large or not of real numbers.
        """
        sample_id = attribution.sample_id
        if sample_id in self._entries:
            raise SubmissionError(f"{self.folder}: the sample {sample_id} was added already")
        if sample_id not in self._samples and self._benchmark.ungrounded([sample_id]):
            raise SubmissionError(
                f"{self.folder}: {sample_id}: is a row of the dataset that is not grounded: nothing says "
                "which region drives that answer, so it is not a sample; leave it out"
            )
        entry = to_entry(attribution, self._samples, self._benchmark.covers, str(self.folder))
        if attribution.saliency is not None:
            self._add_map(sample_id, attribution.saliency, attribution.frame)
        self._entries[sample_id] = entry

    def _add_map(self, sample_id: str, saliency: npt.NDArray[np.generic], covers: MapFrame) -> None:
        frame: MapFrame = "image" if "image" in (self._default_frame, covers) else "model"
        if len(self._maps) and frame != self._frame:
            raise SubmissionError(
                f"{self.folder}: {sample_id}: its map covers the {frame} frame, and those before it the "
                f"{self._frame} frame; give all of one, for example by Attribution.in_model_frame"
            )
        self._frame = frame
        try:
            self._maps.add(sample_id, saliency, self._stored)
        except ValueError as error:
            raise SubmissionError(f"{self.folder}: {error}") from None

    def _check_free(self) -> None:
        if not os.path.lexists(self.folder):
            return
        if not self._overwrite:
            raise SubmissionError(
                f"{self.folder}: exists already; choose another name, or replace it with overwrite=True "
                "(--overwrite on the command line)"
            )
        if not (self.folder / DOCUMENT_NAME).is_file():
            raise SubmissionError(
                f"{self.folder}: is not a submission, so that it is not overwritten; remove it"
            )

    def _document(self, maps: dict[str, Any] | None) -> SubmissionDocument:
        """The document without its attributions. Raises SubmissionError with every problem."""
        document, problems = parse_head({**self._head, "maps": maps}, str(self.folder / DOCUMENT_NAME))
        if document is None:
            raise SubmissionError(problems)
        return document

    def _finish(self) -> None:
        held_maps = len(self._maps) > 0
        digest = self._maps.finish()
        if not held_maps:
            (self._work / MAPS_NAME).unlink()
        maps = {"file": MAPS_NAME, "sha256": digest, "frame": self._frame}
        head = self._document(maps if held_maps else None)
        document = head.model_copy(update={"attributions": list(self._entries.values())})
        data = document.model_dump_json(exclude_none=True, indent=1).encode() + b"\n"
        if len(data) > MAX_DOCUMENT_BYTES:
            raise SubmissionError(
                f"{self.folder}: its {DOCUMENT_NAME} would be {len(data):,} bytes; at most "
                f"{MAX_DOCUMENT_BYTES:,} are read; leave out token scores, or cover fewer splits"
            )
        (self._work / DOCUMENT_NAME).write_bytes(data)
        self._work.chmod(0o755)
        self._check_free()
        replace_folder(self._work, self.folder)


def _plain(value: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else dict(value)
