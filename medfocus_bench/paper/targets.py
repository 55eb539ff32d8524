"""What can be reproduced: the paper's tables and figures, and what of each is known here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medfocus_bench.data.questions import MODES
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.paper import comparing, figures, groups
from medfocus_bench.paper.document import Reproduction, reproduction_tables, summary
from medfocus_bench.paper.plan import Plan, plan
from medfocus_bench.paper.request import MEDFOCUS, Request
from medfocus_bench.paper.work import Work, fresh, missing, perform
from medfocus_bench.runs.settings import write_document
from medfocus_bench.storage import write_atomic
from medfocus_bench.tables import render_markdown

NOTHING: Final = "not published here: the sources of this package do not state them"


@dataclass(frozen=True)
class Target:
    """A table or figure: which runs it needs, and how its rows come of them.

    `published` says which values of the paper stand beside ours, `methods` which can be asked for. `works`
    lists the runs; `collect` reads them, given why some could not be made; `adapt` changes the request first.
    """

    name: str
    title: str
    published: str
    methods: Sequence[str]
    works: Callable[[Request], list[Work]]
    collect: Callable[[Request, Sequence[Work], Mapping[str, str]], Reproduction]
    adapt: Callable[[Request], Request] = lambda request: request

    def check_methods(self, names: Iterable[str]) -> None:
        """Raises InputError for a method that is asked for and is none of the target's."""
        for name in names:
            if name not in self.methods:
                known = f"only {', '.join(self.methods)}" if self.methods else "which runs none"
                raise InputError(f"no method {name!r} in {self.name}, {known}")


_ONE: Final = (MEDFOCUS,)


def _direct(request: Request) -> list[Work]:
    return comparing.method_works(request, ("direct",))


def _medfocus(request: Request) -> list[Work]:
    return [comparing.medfocus_work(request, MODES)]


TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        Target(
            "table1",
            "the methods compared, direct mode: IoU, F1, precision and recall by source",
            "the means over the paper's six LVLMs, by source",
            comparing.METHODS,
            _direct,
            comparing.main_table,
        ),
        Target(
            "table2",
            "kept samples by LVLM, source and mode",
            "all counts (1,880 direct, 2,060 reasoning)",
            (),
            groups.kept_works,
            groups.kept_table,
        ),
        Target(
            "table3",
            "the methods compared, reasoning mode",
            NOTHING,
            comparing.METHODS,
            lambda request: comparing.method_works(request, ("reasoning",)),
            comparing.main_table,
        ),
        Target("table4", "MedFocus by LVLM, source and mode", NOTHING, _ONE, _medfocus, comparing.per_model),
        Target(
            "table5",
            "the three groups of the causal filter, and how often MedFocus fails on each",
            NOTHING,
            _ONE,
            groups.group_works,
            groups.group_table,
        ),
        Target(
            "table6",
            "ablations of MedFocus: region, fill, localisation",
            NOTHING,
            _ONE,
            lambda request: comparing.variant_works(request, ("direct",), ("region", "fill", "localisation")),
            comparing.varied,
        ),
        Target(
            "table7",
            "sensitivity of MedFocus: size of the pool, lambda, eps",
            NOTHING,
            _ONE,
            lambda request: comparing.variant_works(request, ("direct",), ("pool size", "lambda", "eps")),
            comparing.varied,
        ),
        Target(
            "table8",
            "seconds and passes a sample by method, direct mode",
            "seconds on an A100",
            comparing.METHODS,
            _direct,
            comparing.seconds_table,
        ),
        Target(
            "fig3",
            "how often MedFocus names each concept",
            NOTHING,
            _ONE,
            _medfocus,
            figures.concept_frequencies,
        ),
        Target(
            "fig5",
            "panels of tokens and concepts, sample by sample",
            "none: the paper's panels are pictures of licensed radiographs",
            _ONE,
            _medfocus,
            figures.concept_panels,
            figures.panel_request,
        ),
        Target(
            "fig6",
            "how often MedFocus fails, by source, mode and LVLM",
            NOTHING,
            _ONE,
            _medfocus,
            figures.failure_rates,
        ),
    )
}
"""By name. The numbers are the paper's for table1 and fig5, and this package's for the others."""


def find_target(name: str) -> Target:
    """The target of that name. Raises InputError that lists them."""
    if name not in TARGETS:
        raise InputError(f"no target {name!r}; there are {', '.join(TARGETS)}")
    return TARGETS[name]


def reproduce(
    name: str,
    request: Request | BenchmarkLike,
    out: str | Path | None = None,
    *,
    run: bool = True,
    say: Callable[[str], None] = lambda sentence: None,
) -> Reproduction:
    """Runs what a target lacks, and writes `<name>.json` and `<name>.md` to the folder of the request.

    A benchmark and `out` stand for a request with nothing else in it.

    A second call goes on where the first was stopped, and records that other targets made are used. Without
    `run` only the records that are there are read, and no LVLM is loaded. `say` is told what is done, a
    sentence at a time. Raises InputError for an unknown target, LVLM or method, for a segmenter or detector
    that is given and cannot be loaded, and as `run.attribute.attribute` does.
    """
    target = find_target(name)
    if not isinstance(request, Request):
        if out is None:
            raise InputError(f"{name}: give a folder for what is written")
        request = Request(load_benchmark(request), Path(out), Path(out) / "runs")
    target.check_methods(request.methods)
    request = target.adapt(request)
    works = target.works(request)
    if works:
        lacking, wanted = missing(works, request)
        rest = "they are made first" if run else "nothing is run"
        say(
            f"{name}: {wanted - lacking:,} of {wanted:,} records are in {request.runs}"
            + f"; {rest}" * (lacking > 0)
        )
    impossible = perform(works, request) if run else {}
    say(f"{name}: computing the table with {request.resamples:,} resamples for the intervals")
    found = target.collect(request, fresh(works), impossible)
    described = {"target": target.name, "title": target.title, "published": target.published}
    made = found.model_copy(update=described)
    write_document(request.out / f"{name}.json", made)
    write_atomic(request.out / f"{name}.md", _markdown(made))
    return made


def plan_of(name: str, request: Request, seconds_per_forward: float | None = None) -> Plan:
    """What `reproduce` would do, and what it would take; writes `<name>-plan.json`."""
    target = find_target(name)
    target.check_methods(request.methods)
    request = target.adapt(request)
    found = plan(target.name, target.title, target.works(request), request, seconds_per_forward)
    write_document(request.out / f"{name}-plan.json", found)
    return found


def _markdown(document: Reproduction) -> str:
    figures_of = "".join(f"\n![{document.title}]({name})\n" for name in document.figures)
    return render_markdown(reproduction_tables(document), summary(document)) + figures_of
