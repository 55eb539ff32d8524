"""How a run asks its LVLMs: the settings beside its methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medfocus_bench.data.questions import GREEDY, Decoding
from medfocus_bench.engine.devices import AUTO, SPREAD, best_dtype, named_device
from medfocus_bench.lvlm.grid import Preprocessing
from medfocus_bench.lvlm.protocol import AUTO_BATCH
from medfocus_bench.lvlm.registry import LVLMSource

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import Target


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The settings of a run beside its methods; all but `device` and `batch` decide what it computes.

    `device`, `quantise`, `decoding` and `pixels` are those of `load_lvlm`. `batch`: the pictures that go
    through an LVLM together, at most; fewer where they do not fit. The dtype `auto` becomes the one that it
    stands for here, so that a run knows it and keeps to it wherever it goes on.
    """

    target: Target = "response"
    seed: int = 0
    dtype: str = AUTO
    framing: Preprocessing = "square"
    device: str = AUTO
    batch: int = AUTO_BATCH
    quantise: str | None = None
    decoding: Decoding = GREEDY
    pixels: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.dtype == AUTO:
            object.__setattr__(self, "dtype", best_dtype(self.device))

    def load(self, source: str) -> HuggingFaceLVLM:
        """The LVLM of a source, which a process keeps until it asks for another; nobody may change it."""
        return self.source(source).load()

    def source(self, name: str) -> LVLMSource:
        """Where workers load the LVLM of a name from, and how."""
        names = ("framing", "dtype", "device", "batch", "quantise", "decoding", "pixels")
        return LVLMSource.of(name, **{option: getattr(self, option) for option in names})

    def placed(self, lvlm: str) -> str:
        """Where an LVLM runs, and in which type: the first line of a run."""
        device = "all GPUs" if self.device == SPREAD else named_device(self.device)
        held = f", with weights of {self.quantise}" if self.quantise else ""
        return f"LVLM {lvlm} on {device} in {self.dtype}{held}"

    @property
    def target_name(self) -> str:
        return self.target if isinstance(self.target, str) else "{}:{}".format(*self.target)
