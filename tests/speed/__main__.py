"""The speed and memory benchmarks: `make speed`, or `python -m tests.speed [NAME ...]`.

Each measures both sides of its ratio in this one run, on one thread, and prints the figures. They are not
tests: a busy machine would fail them.
"""

from __future__ import annotations

import os
import sys

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

from tests.speed import (  # noqa: E402
    bench_atlas,
    bench_evaluate,
    bench_import,
    bench_leaderboard,
    bench_medfocus,
    bench_occlusion,
    bench_phantom,
    bench_regions,
    bench_sources,
    bench_transport,
)

BENCHES = {
    "import": bench_import.run,
    "regions": bench_regions.run,
    "evaluate": bench_evaluate.run,
    "phantom": bench_phantom.run,
    "occlusion": bench_occlusion.run,
    "transport": bench_transport.run,
    "medfocus": bench_medfocus.run,
    "atlas": bench_atlas.run,
    "leaderboard": bench_leaderboard.run,
    "sources": bench_sources.run,
}

for name in sys.argv[1:] or BENCHES:
    if name not in BENCHES:
        sys.exit(f"no benchmark {name!r}; there are {', '.join(BENCHES)}")
    print(f"== {name}", flush=True)
    BENCHES[name]()
