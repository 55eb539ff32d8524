"""Reference radiographs whose anatomy is outlined: what concepts are carried over from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medfocus_bench.data.concepts import concept_named
from medfocus_bench.data.images import decode_levels, decode_uint8
from medfocus_bench.data.pixels import MAX_FILE_BYTES
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.medfocus.grids import grid_image
from medfocus_bench.medfocus.transport import Problem, transport
from medfocus_bench.storage import check_fetched, read_regular

Selection = Literal["cost", "divergence"]

_FORMAT: Final = "medfocus-bench references 1"
_SELECTION_GRID: Final = 14
_MAX_REFERENCES: Final = 1000
_MAX_SIDE: Final = 10_000
_SUFFIXES: Final = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePool:
    """Images with the masks of their concepts.

    `images`: uint8 arrays (height, width), of any size each; `masks`: for each image a bool array of its
    size by concept. Any vocabulary will do; a concept may be missing from some of the images. Raises
    ValueError for other types and shapes, for an empty pool and for a mask without a pixel.
    """

    images: Sequence[UInt8Image]
    masks: Sequence[Mapping[str, BoolArray]]

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.images) != len(self.masks):
            raise ValueError(f"{len(self.images)} reference images with {len(self.masks)} sets of masks")
        for number, (image, masks) in enumerate(zip(self.images, self.masks, strict=True)):
            if image.dtype != np.uint8 or image.ndim != 2:
                raise ValueError(
                    f"reference {number} is {image.dtype} {image.shape}, not uint8 (height, width)"
                )
            for concept, mask in masks.items():
                if mask.dtype != np.bool_ or mask.shape != image.shape or not mask.any():
                    raise ValueError(
                        f"reference {number}: the mask of {concept} is not a bool array of the image's shape "
                        f"{image.shape} with a pixel in it"
                    )
        if not self.concepts:
            raise ValueError("the reference images have no concepts")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def concepts(self) -> tuple[str, ...]:
        """All concepts of the pool, in the order in which they first come."""
        return tuple(dict.fromkeys(concept for masks in self.masks for concept in masks))

    def subset(self, numbers: Sequence[int]) -> ReferencePool:
        """The pool of some of the references."""
        return ReferencePool([self.images[n] for n in numbers], [self.masks[n] for n in numbers])

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; masks take a bit a pixel."""
        arrays: dict[str, Any] = {}
        for number, (image, masks) in enumerate(zip(self.images, self.masks, strict=True)):
            arrays[f"{number}/image"] = np.ascontiguousarray(image)
            arrays |= {f"{number}/mask/{concept}": np.packbits(mask) for concept, mask in masks.items()}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, path, metadata={"format": _FORMAT})

    @classmethod
    def load(cls, path: str | Path) -> ReferencePool:
        """Read what `save` wrote. Raises InputError, naming the file, for anything else."""
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") != _FORMAT:
                    raise InputError(f"{path}: is not a reference pool; build one with `reference build`")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            check_fetched(Path(path))
            raise InputError(f"{path}: cannot be read as a reference pool: {error}") from None
        try:
            return _unpacked(arrays)
        except (ValueError, KeyError) as error:
            raise InputError(f"{path}: is a damaged reference pool: {error}") from None

    def closest(self, image: UInt8Image, by: Selection = "cost") -> int:
        """The number of the reference that is nearest to an image, both at 14 x 14.

        `cost`: the smallest sum(C P), as the paper has it; since mass may vanish, it goes mostly by how
        little of the reference is bright. `divergence`: the smallest debiased transport value
        W(a, b) - W(a, a) / 2 - W(b, b) / 2, which is zero for the image itself.
        """
        return int(np.argmin(self.distances(image, by)))

    def distances(self, image: UInt8Image, by: Selection = "cost") -> npt.NDArray[np.float64]:
        """The objective of `closest`, one number a reference."""
        target = grid_image(image, _SELECTION_GRID)
        sources = [grid_image(reference, _SELECTION_GRID) for reference in self.images]
        if by == "cost":
            scales = [source.cost_scale(target) for source in sources]
            return transport(
                np.stack([source.support for source in sources]), target.support, scale=scales
            ).cost
        problem = Problem(formulation="kl", max_iterations=2000, tolerance=1e-9)
        scale = float(_SELECTION_GRID**2) / 4
        own = transport(target.support, target.support, problem, scale=scale).value[0]
        stacked = np.stack([source.support for source in sources])
        across = transport(stacked, target.support, problem, scale=scale).value
        within = transport(stacked, stacked, problem, scale=scale).value
        return np.asarray(across - within / 2 - own / 2)


def check_references(source: str | None) -> None:
    """Raise InputError where a pool of references is neither the shipped one nor a sound file."""
    if source in (None, "phantom"):
        return
    if not Path(str(source)).is_file():
        raise InputError(f"--references {source}: is not a file; give one of `reference build`, or phantom")
    ReferencePool.load(str(source))


def build_pool(folder: str | Path) -> ReferencePool:
    """The pool of a folder: `images/NAME.png` with the masks in `masks/NAME/CONCEPT.png`.

    `masks/CONCEPT/NAME.png` will do as well. JPEG images are read, too; a mask is what is brighter than
    half. Raises InputError, naming the file, for a picture that cannot be read, a mask of another size or
    without a pixel, and an image without masks.
    """
    root = Path(folder)
    paths = sorted(path for path in _files(root / "images") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(f"{root}: has no images; put them into {root / 'images'} as PNG or JPEG")
    if len(paths) > _MAX_REFERENCES:
        raise InputError(f"{root}: has {len(paths)} images; a pool holds at most {_MAX_REFERENCES}")
    images, masks = [], []
    for path in paths:
        image = decode_uint8(read_regular(path, MAX_FILE_BYTES), place=str(path))
        found = {
            concept_named(name): _mask(place, image) for name, place in _masks_of(root / "masks", path.stem)
        }
        if not found:
            raise InputError(f"{path}: has no masks; put them into {root / 'masks' / path.stem}/CONCEPT.png")
        images.append(image)
        masks.append(found)
    return ReferencePool(images, masks)


def phantom_pool() -> ReferencePool:
    """The shipped pool: sixteen phantoms without findings, none of them in the phantom track."""
    return ReferencePool.load(Path(__file__).parent / "phantom-references.safetensors")


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file())


def _masks_of(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    own = folder / name
    if own.is_dir():
        yield from sorted((path.stem, path) for path in _files(own) if path.suffix.lower() == ".png")
    elif folder.is_dir():
        places = ((concept.name, concept / f"{name}.png") for concept in folder.iterdir() if concept.is_dir())
        yield from sorted((concept, path) for concept, path in places if path.is_file())


def _mask(path: Path, image: UInt8Image) -> BoolArray:
    mask = decode_levels(read_regular(path, MAX_FILE_BYTES), place=str(path)) > 127
    if mask.shape != image.shape:
        raise InputError(
            f"{path}: is {mask.shape[1]} x {mask.shape[0]}, its image {image.shape[1]} x {image.shape[0]}"
        )
    if not mask.any():
        raise InputError(f"{path}: is empty; leave out the mask of a concept that is not there")
    return np.asarray(mask)


def _unpacked(arrays: Mapping[str, Any]) -> ReferencePool:
    images: dict[int, UInt8Image] = {}
    packed: dict[int, dict[str, UInt8Image]] = {}
    for name, array in arrays.items():
        number, _, rest = name.partition("/")
        if rest == "image":
            images[int(number)] = array
        else:
            packed.setdefault(int(number), {})[rest.removeprefix("mask/")] = array
    if sorted(images) != list(range(len(images))) or set(packed) != set(images):
        raise ValueError("images and masks do not belong together")
    pool_masks = []
    for place, image in sorted(images.items()):
        if image.ndim != 2 or max(image.shape) > _MAX_SIDE:
            raise ValueError(f"image {place} has the shape {image.shape}")
        unpacked: dict[str, BoolArray] = {}
        for concept, bits in packed[place].items():
            if bits.dtype != np.uint8 or bits.size != (image.size + 7) // 8:
                raise ValueError(f"the mask of {concept} does not fit image {place}")
            unpacked[concept] = np.unpackbits(bits)[: image.size].reshape(image.shape).astype(np.bool_)
        pool_masks.append(unpacked)
    return ReferencePool([images[place] for place in sorted(images)], pool_masks)
