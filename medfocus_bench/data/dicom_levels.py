"""Stored values of a DICOM radiograph as a viewer shows them.

The order is that of the standard (PS3.4, N.2): stored values, modality transform (table or rescale), values
of interest (table or window), and last the inversion. Each step is done to the distinct values, of which a
picture of 16 bits has 65,536 at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.data.pixels import Values, in_levels, own_range, within
from medfocus_bench.geometry import FloatArray, UInt8Image

if TYPE_CHECKING:
    from pydicom import Dataset

_SIGN: Final = 1 << 15
_WORD: Final = 1 << 16


def shown(dataset: Dataset, stored: npt.NDArray[Any]) -> UInt8Image:
    """Levels of 0 to 255 of the stored values (height, width), whole numbers.

    Raises ValueError, which says why, where nothing would be seen: a window or a table that all values miss.
    """
    values = Values.of(stored)
    padded = _padding(dataset, values)
    seen = (values.counts > 0) & ~padded
    after = _modality(dataset, values.points)
    grey, how = _of_interest(dataset, after, np.where(seen, values.counts, 0), _can_be_negative(dataset))
    here = grey[seen]
    if how and here.min() == here.max() and after[seen].min() < after[seen].max():
        low, high = after[seen].min(), after[seen].max()
        raise ValueError(f"{how} shows all of its values, {low:g} to {high:g}, as one; correct the header")
    if _is_inverted(dataset):
        grey = 1 - grey
    return values.shown(in_levels(np.where(padded, 0.0, grey)))


def _is_inverted(dataset: Dataset) -> bool:
    """Whether low values are bright: either tag says so, both mean the same one inversion.

    The standard pairs MONOCHROME1 with INVERSE and MONOCHROME2 with IDENTITY (PS3.3, C.8.11.3). Where a
    file pairs them otherwise, viewers differ; here MONOCHROME1 wins over IDENTITY, as in most of them.
    """
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    return shape == "INVERSE" or dataset.PhotometricInterpretation == "MONOCHROME1"


def _padding(dataset: Dataset, values: Values) -> npt.NDArray[np.bool_]:
    """The padding values, which would spoil the picture's range; empty if that were all values."""
    value = _number(dataset, "PixelPaddingValue", None)
    if value is None:
        return np.zeros(len(values.points), dtype=np.bool_)
    limit = _number(dataset, "PixelPaddingRangeLimit", value)
    value, limit = (_as_stored(part, values.stored.dtype) for part in (value, limit))
    padded = (values.points >= min(value, limit)) & (values.points <= max(value, limit))
    left = values.counts[~padded].sum()
    return padded if left else np.zeros(len(values.points), dtype=np.bool_)


def _as_stored(value: float, kind: np.dtype[Any]) -> float:
    """A value as the pixels hold it: signed ones that are written as unsigned, and the other way round."""
    info = np.iinfo(kind)
    if value > info.max and info.min < 0:
        return value - (1 << info.bits)
    return value + (1 << info.bits) if value < info.min and info.min == 0 else value


def _can_be_negative(dataset: Dataset) -> bool:
    """Whether the values that a table takes can be: then its first value may be meant as negative."""
    return bool(dataset.get("PixelRepresentation")) or _number(dataset, "RescaleIntercept", 0.0) < 0


def _modality(dataset: Dataset, points: npt.NDArray[np.int64]) -> FloatArray:
    tables = dataset.get("ModalityLUTSequence")
    if tables:
        table, _ = _looked_up(
            points.astype(np.float64), tables[0], signed=bool(dataset.get("PixelRepresentation"))
        )
        return table
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    return np.asarray(points * slope + intercept, dtype=np.float64)


def _of_interest(
    dataset: Dataset, values: FloatArray, counts: npt.NDArray[np.int64], signed: bool
) -> tuple[FloatArray, str]:
    """Grey in [0, 1] by the first table, else by the first window, else by the picture's own range.

    And the words for a message: by what, or nothing for its own range.
    """
    tables = dataset.get("VOILUTSequence")
    if tables:
        entries, bits = _looked_up(
            values, tables[0], signed=signed and not dataset.get("ModalityLUTSequence")
        )
        return np.clip(entries / (2**bits - 1), 0.0, 1.0), "its VOI lookup table"
    centre, width = _number(dataset, "WindowCenter", None), _number(dataset, "WindowWidth", None)
    if centre is not None and width is not None and width > 0:
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
        return _windowed(values, centre, width, function), f"its window (centre {centre:g}, width {width:g})"
    return within(values, *own_range(values, counts)), ""


def _windowed(values: FloatArray, centre: float, width: float, function: str) -> FloatArray:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80))))
    if function == "LINEAR" and width > 1:
        centre, width = centre - 0.5, width - 1
    return np.clip((values - centre) / width + 0.5, 0.0, 1.0)


def _looked_up(values: FloatArray, table: Dataset, *, signed: bool) -> tuple[FloatArray, int]:
    """The entry of each value, and how many bits an entry has (PS3.3, C.11.1.1 and C.11.2.1.1).

    The first entry holds up to its value, the last from its value on. `signed`: a first value in the upper
    half of 16 bits, which none of the values reaches, means the negative one. The bits are those that the
    table states, unless its entries need more, or leave three quarters of what they could say unused: then
    they are of as many bits as they need.
    """
    entries, first, bits = (int(part) for part in table.LUTDescriptor)
    entries = entries or _WORD
    if signed and first >= _SIGN and first > values.max():
        first -= _WORD
    data = table.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, dtype="<u2" if len(data) >= 2 * entries else "u1")
    levels = np.asarray(data, dtype=np.int64)[:entries]
    if len(levels) != entries or not 8 <= bits <= 16 or levels.min() < 0:
        raise ValueError("its lookup table is damaged")
    needed = max(8, int(levels.max()).bit_length())
    if needed > bits or needed <= bits - 2:
        bits = needed
    positions = np.clip(np.round(values) - first, 0, entries - 1).astype(np.intp)
    return levels[positions].astype(np.float64), bits


def _number(dataset: Dataset, name: str, default: Any) -> Any:
    """The (first) number of a tag; the default where the tag is not there or is empty."""
    value = dataset.get(name)
    if value is None or value == "" or (hasattr(value, "__len__") and len(value) == 0):
        return default
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
