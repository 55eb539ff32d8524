"""The editor of the paper: RadEdit, in its own frame, with a cache on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medfocus_bench.counterfactual.cache import PictureCache, content_key
from medfocus_bench.counterfactual.editors import Edit, EditorError, Redrawing
from medfocus_bench.counterfactual.framing import FramedPicture
from medfocus_bench.counterfactual.weights import FetchedPart, ModelPart
from medfocus_bench.data.questions import Question
from medfocus_bench.geometry import MODEL_SIZE, BoolArray, UInt8Image

if TYPE_CHECKING:
    from medfocus_bench.counterfactual.diffusion import DiffusionStack, EditSettings, Task

UNET: Final = "microsoft/radedit@e8ebd31396ff8553c34084b98b5defb8ebea2817"
VAE: Final = "stabilityai/sdxl-vae@6f5909a7e596173e25d4e97b07fd19cdf9611c76"
TEXT_ENCODER: Final = "microsoft/BiomedVLP-BioViL-T@692f09e9be1bfe5fdd5f3efdd0e1eca7d2c10b23"

_TRAINING_STEPS: Final = 1000
_SIZES: Final = range(64, 1025, 64)
_INSTALL: Final = "install the extra with pip install 'medfocus-bench[radedit]'"


@dataclass(frozen=True)
class RadEdit:
    """An editor with a diffusion model of chest radiographs (paper, section 2; defaults are the paper's).

    `unet`, `vae`, `text_encoder`: local folders, or Hub ids with the commit that pins them; one without needs
    `allow_unpinned`. `size`: side of the square that is drawn, 224 as in the paper, or 512, at which the
    model was trained. `steps` divides 1,000. `sham_prompt`: what the region is redrawn with when the finding
    is to stay; `{finding}` is replaced. `batch`: edits at a time. `cache`: a folder for drawn pictures.
    """

    name = "radedit"
    version = "1"

    unet: str = UNET
    vae: str = VAE
    text_encoder: str = TEXT_ENCODER
    allow_unpinned: bool = False
    size: int = MODEL_SIZE
    steps: int = 200
    guidance: float = 7.5
    skip_ratio: float = 0.3
    sham_prompt: str = "{finding}"
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 4
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.size not in (*_SIZES, MODEL_SIZE):
            raise EditorError(f"radedit: size {self.size} is not 224 or a multiple of 64 up to 1024")
        if self.steps < 1 or _TRAINING_STEPS % self.steps:
            raise EditorError(f"radedit: steps {self.steps} does not divide 1000; take 200, 100 or 50")
        if not 0 <= self.skip_ratio <= 1:
            raise EditorError(f"radedit: skip_ratio {self.skip_ratio} is not from 0 to 1")
        if not 0 <= self.guidance <= 100:
            raise EditorError(f"radedit: guidance {self.guidance} is not from 0 to 100")
        if not 1 <= self.batch <= 256:
            raise EditorError(f"radedit: batch {self.batch} is not from 1 to 256")
        if self.cache is not None and (self.cache == Path() or self.cache.is_file()):
            raise EditorError(f"radedit: cache {str(self.cache)!r} is not a folder of its own; name one")
        for part in self._parts:
            if not (part.is_pinned or self.allow_unpinned):
                raise EditorError(
                    f"radedit: {part.place} is not pinned to a commit: write {part.place}@COMMIT with its "
                    "40 hex digits, give a folder, or set allow_unpinned=true"
                )

    @property
    def resolution(self) -> int:
        """All pictures that are compared are taken to the size of the square."""
        return self.size

    @cached_property
    def digest(self) -> str:
        """A hash of all that decides what is drawn: settings and weights. The weights are fetched for it."""
        weights = [part.fingerprint() for part in self._fetched]
        return content_key(
            name=self.name,
            version=self.version,
            weights=weights,
            size=self.size,
            steps=self.steps,
            guidance=float(self.guidance),
            skip_ratio=float(self.skip_ratio),
            sham_prompt=self.sham_prompt,
            dtype=self.dtype,
        )

    def prompt(self, edit: Edit, finding: str) -> str:
        """The prompt of an edit."""
        if edit == "background_normal":
            return "No abnormality"
        return (self.sham_prompt if edit == "sham" else "No {finding}").replace("{finding}", finding)

    def redraw(self, question: Question, edit: Edit, region: BoolArray, seed: int) -> UInt8Image:
        """One edit, brought back to the native frame (bicubic)."""
        return self.redraw_many([Redrawing(question, edit, region, seed)])[0]

    def redraw_many(self, redrawings: Sequence[Redrawing]) -> list[UInt8Image]:
        """Edits, `batch` at a time; those in the cache are not drawn again.

        Raises EditorError where weights, device or libraries are missing.
        """
        store = None if self.cache is None else PictureCache(self.cache)
        framed = [FramedPicture.of(r.question.image, r.region, self.size) for r in redrawings]
        keys = [self._key(r, picture) for r, picture in zip(redrawings, framed, strict=True)]
        drawn: dict[str, UInt8Image] = {}
        if store is not None:
            found = {key: store.get(key, (self.size, self.size)) for key in keys}
            drawn |= {key: picture for key, picture in found.items() if picture is not None}
        pending = iter({key: n for n, key in enumerate(keys) if key not in drawn}.items())
        while group := dict(islice(pending, self.batch)):
            stack = self._stack
            tasks = [self._task(redrawings[n], framed[n]) for n in group.values()]
            latents = stack.edit(tasks, self._settings)
            for key, picture in zip(group, stack.decode(latents), strict=True):
                drawn[key] = picture
                if store is not None:
                    store.put(key, picture)
        return [
            picture.native(drawn[key], redrawing.question.image)
            for key, picture, redrawing in zip(keys, framed, redrawings, strict=True)
        ]

    def _task(self, redrawing: Redrawing, framed: FramedPicture) -> Task:
        from medfocus_bench.counterfactual.diffusion import Task

        # The noise of a picture is its own: not that of another with the same seed, nor one of the batch.
        mixed = sha256(framed.grey.tobytes() + str(redrawing.seed).encode()).digest()[:8]
        prompt = self.prompt(redrawing.edit, redrawing.question.finding)
        return Task(framed.grey, framed.region, prompt, int.from_bytes(mixed, "big") >> 1)

    def _key(self, redrawing: Redrawing, framed: FramedPicture) -> str:
        return content_key(
            editor=self.digest,
            picture=framed.grey,
            region=framed.region,
            edit=redrawing.edit,
            prompt=self.prompt(redrawing.edit, redrawing.question.finding),
            seed=redrawing.seed,
        )

    @property
    def _parts(self) -> tuple[ModelPart, ModelPart, ModelPart]:
        return (
            ModelPart.parse(self.unet, "unet"),
            ModelPart.parse(self.vae),
            ModelPart.parse(self.text_encoder),
        )

    @cached_property
    def _fetched(self) -> tuple[FetchedPart, FetchedPart, FetchedPart]:
        unet, vae, text_encoder = self._parts
        try:
            return unet.fetch(), vae.fetch(), text_encoder.fetch()
        except ImportError as error:
            raise EditorError(f"radedit needs {error.name}: {_INSTALL}") from None

    @property
    def _settings(self) -> EditSettings:
        from medfocus_bench.counterfactual.diffusion import EditSettings

        return EditSettings(self.steps, self.guidance, self.skip_ratio)

    @cached_property
    def _stack(self) -> DiffusionStack:
        try:
            from medfocus_bench.counterfactual.diffusion import DiffusionStack
        except ImportError as error:
            raise EditorError(f"radedit needs {error.name}: {_INSTALL}") from None
        unet, vae, text_encoder = (part.folder for part in self._fetched)
        stack = DiffusionStack.load(unet, vae, text_encoder, device=self.device, dtype=self.dtype)
        if self.size % stack.cell:
            raise EditorError(
                f"radedit: size {self.size} is not a multiple of {stack.cell}, the autoencoder's cell"
            )
        return stack
