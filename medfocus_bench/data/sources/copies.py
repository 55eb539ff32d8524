"""Checking that local pictures are the ones that the experts annotated.

Boxes in pixels do not say of which size their picture is. In a reduced copy most lie outside, and a few,
near the upper left corner, fit by chance: in the wrong place. So a collection is judged as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from medfocus_bench.data.sources.protocol import Annotation, Annotations
from medfocus_bench.data.sources.reading import LocatedBoxes, MisfitError, locate
from medfocus_bench.errors import InputError

MISFITS: Final = 3
MISFIT_SHARE: Final = 0.05
"""Pictures, and their share, whose boxes lie outside; of the published copies none does."""


class OtherCopyError(InputError):
    """The local pictures are not the annotated ones, so no box can be placed."""


def check_copy(
    annotations: Annotations, root: Path, find: Callable[[Annotation, Path], LocatedBoxes] = locate
) -> None:
    """Raise OtherCopyError if the local pictures of a source are not the annotated ones.

    Reads the header of every picture whose boxes are in pixels, with `find`; pictures that are not there or
    cannot be read are left out of the count.
    """
    fits: dict[str, bool] = {}
    for annotation in annotations.questions:
        if annotation.relative:
            continue
        ref = annotation.image_ref
        try:
            region = find(annotation, root)
        except MisfitError:
            fits[ref] = False
        except InputError:
            continue
        else:
            fits[ref] = fits.get(ref, True) and len(region.anatomy) == len(annotation.anatomy)
    misfits = [ref for ref, holds in fits.items() if not holds]
    if len(misfits) >= MISFITS and len(misfits) >= MISFIT_SHARE * len(fits):
        raise OtherCopyError(
            f"{root / misfits[0]}: does not hold its boxes, nor do {len(misfits) - 1:,} more of the "
            f"{len(fits):,} pictures of {annotations.source}; they are a resized or a cropped copy, so none "
            "of its boxes is used: put the pictures there as the collection publishes them"
        )
