"""medfocus-bench: whether an explanation points at the evidence that the model really used.

The public names load on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medfocus_bench._version import __version__

if TYPE_CHECKING:
    from medfocus_bench.attribution.attribution import Attribution as Attribution
    from medfocus_bench.attribution.protocol import Method as Method
    from medfocus_bench.attribution.registry import list_methods as list_methods
    from medfocus_bench.attribution.registry import load_method as load_method
    from medfocus_bench.data.benchmark import Benchmark as Benchmark
    from medfocus_bench.data.hub.samples import load_samples as load_samples
    from medfocus_bench.data.resolve import load_benchmark as load_benchmark
    from medfocus_bench.data.sample import Sample as Sample
    from medfocus_bench.data.writing import write_benchmark as write_benchmark
    from medfocus_bench.errors import InputError as InputError
    from medfocus_bench.evaluation.compare import compare as compare
    from medfocus_bench.evaluation.evaluate import evaluate as evaluate
    from medfocus_bench.evaluation.report import Report as Report
    from medfocus_bench.evaluation.score import score as score
    from medfocus_bench.lvlm.registry import list_lvlms as list_lvlms
    from medfocus_bench.lvlm.registry import load_lvlm as load_lvlm
    from medfocus_bench.runs.attribute import attribute as attribute
    from medfocus_bench.submission.reader import validate as validate
    from medfocus_bench.submission.schema import MethodMetadata as MethodMetadata
    from medfocus_bench.submission.writer import SubmissionWriter as SubmissionWriter

_HOMES = {
    "Attribution": "attribution.attribution",
    "Benchmark": "data.benchmark",
    "InputError": "errors",
    "Method": "attribution.protocol",
    "MethodMetadata": "submission.schema",
    "Report": "evaluation.report",
    "Sample": "data.sample",
    "SubmissionWriter": "submission.writer",
    "attribute": "runs.attribute",
    "compare": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "list_lvlms": "lvlm.registry",
    "list_methods": "attribution.registry",
    "load_benchmark": "data.resolve",
    "load_lvlm": "lvlm.registry",
    "load_method": "attribution.registry",
    "load_samples": "data.hub.samples",
    "score": "evaluation.score",
    "validate": "submission.reader",
    "write_benchmark": "data.writing",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
