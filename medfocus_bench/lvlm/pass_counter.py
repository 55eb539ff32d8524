"""Counting the passes and the time of a piece of work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class PassCounter:
    """Passes since its construction: a forward pass of a batch of n pictures counts n."""

    forward_passes: int = 0
    backward_passes: int = 0
    _start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start
