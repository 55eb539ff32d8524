"""Methods on one checkpoint, in a process of its own: `python -m tests.realsize.one JSON` prints JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medfocus_bench.errors import InputError

LIMIT = 20 * 10**9
"""Bytes of address space that the process may take."""

PICTURE = (3056, 2544)
"""Height and width of a radiograph of MIMIC-CXR or ChestX-ray14 as it leaves the detector."""


def measure(model: dict[str, Any], methods: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The cost of each method on the checkpoint in `folder`, and the worth of its numbers.

    Memory is resident memory in GiB: `weights` of the parameters, `before` of the process with the model read
    and the picture encoded, `peak` while the method ran. `cpu_seconds` are the process's own, on one thread.
    """
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    import torch

    from medfocus_bench.data.questions import prompt
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from tests.realsize.architectures import cut

    torch.set_num_threads(1)
    lvlm = HuggingFaceLVLM(
        model["model"], model["folder"], framing=model["framing"], dtype="bfloat16", batch=1
    )
    cut(lvlm.model, lvlm.decoder, model["blocks"], model["vision_blocks"])
    example = lvlm.encode(radiograph(), prompt("mass", "direct"), "Yes.", finding="mass")
    weights = list(lvlm.model.parameters())
    for weight in weights:
        weight.view(-1)[:: 2**10].sum()  # they are mapped files: read now, or they would be the method's
    about = {name: value for name, value in model.items() if name != "folder"} | {
        "length": len(example.ids),
        "image_tokens": len(example.image_positions),
        "parameters": sum(weight.numel() for weight in weights),
        "weights": sum(weight.nbytes for weight in weights) / 2**30,
        "torch": torch.__version__,
    }
    for method in methods:
        try:
            yield about | method | _cost(lvlm, example, method)
        except (InputError, MemoryError, RuntimeError) as error:
            yield about | method | {"error": " ".join(str(error).split())[:300]}


def _cost(lvlm: Any, example: Any, task: dict[str, Any]) -> dict[str, Any]:
    from medfocus_bench.attribution.protocol import measured
    from medfocus_bench.attribution.registry import load_method

    method = load_method(task["method"], **task["settings"])
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the last method freed
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start, used = time.perf_counter(), time.process_time()
    found = measured(method, lvlm, example, target="response", seed=0)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - used
    values = found.saliency if found.saliency is not None else found.boxes
    assert found.cost is not None
    return {
        "before": before,
        "peak": _memory("VmHWM"),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "forward": found.cost.forward_passes,
        "backward": found.cost.backward_passes,
        "not_finite": 0 if values is None else int((~np.isfinite(values)).sum()),
        "empty": values is None or not np.any(values),
        "diagnostics": dict(found.diagnostics),
        "load": os.getloadavg()[0],
    }


def radiograph() -> np.ndarray:
    """A phantom's radiograph at the size of a real one: (3056, 2544), uint8."""
    from PIL import Image

    from medfocus_bench.phantom.render import Patient, render

    height, width = PICTURE
    picture = Image.fromarray(render(Patient.sample(3)).image)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def _memory(key: str) -> float:
    """A figure of this process's memory, in GiB."""
    found = re.search(key + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20


if __name__ == "__main__":
    for line in measure(*json.loads(sys.argv[1])):
        print(json.dumps(line), flush=True)
