"""`attribute`, `tune` and `pack`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfocus_bench.cli.options import (
    INPUT,
    INPUT_FILE,
    MODES,
    OUTPUT_FILE,
    OUTPUT_FOLDER,
    Command,
    benchmark_option,
    check_new,
    decoding_option,
    engine_options,
    limit_option,
    lvlms_option,
    model_options,
    split_commas,
    tuned_option,
)
from medfocus_bench.cli.output import one_line, print_tables, say, warn
from medfocus_bench.cli.progress import show_progress

if TYPE_CHECKING:
    from medfocus_bench.engine.protocol import Engine
    from medfocus_bench.runs.config import RunConfig
    from medfocus_bench.runs.methods import MethodSpec
    from medfocus_bench.runs.pack import Thinning
    from medfocus_bench.runs.parts import PartOutcome
    from medfocus_bench.runs.tuning import TunedPart


@click.command("attribute", cls=Command)
@click.option(
    "--method",
    "names",
    multiple=True,
    required=True,
    metavar="NAME[,NAME]",
    callback=split_commas,
    help="Methods by name, `all`, null controls, or module:Class.",
)
@lvlms_option()
@benchmark_option()
@click.option("--split", "splits", multiple=True, callback=split_commas, help="May be repeated.")
@click.option("--config", "configs", multiple=True, callback=split_commas, help="Default: all.")
@limit_option()
@click.option(
    "--image",
    type=INPUT_FILE,
    help="Explain this picture (PNG or JPEG) instead of a benchmark.",
)
@click.option("--question", help="The question to the LVLM about the picture.")
@click.option("--response", help="Its answer. Default: it answers now.")
@click.option("--finding", help="The finding that the question is about, for editors that remove it.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier explanation of a picture.")
@click.option(
    "--out",
    required=True,
    type=OUTPUT_FOLDER,
    help="Folder for the records of a run, which a second call resumes, or of a picture.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="[METHOD.]FIELD=VALUE", help="A setting of the methods."
)
@tuned_option
@click.option(
    "--target",
    default="response",
    show_default=True,
    metavar="response|verdict|START:STOP",
    help="The part to explain: the response, its yes or no, or a span of its tokens.",
)
@click.option(
    "--shard",
    metavar="N/COUNT|slurm",
    help="Only a part of the samples, into OUT/shard-N-of-COUNT; slurm: that of a task of a Slurm array.",
)
@click.option("--wait", is_flag=True, help="Wait where another process writes to OUT, and go on from there.")
@decoding_option()
@model_options
@engine_options()
def attribute_command(
    names: tuple[str, ...],
    assignments: tuple[str, ...],
    tuned: tuple[Path, ...],
    target: str,
    image: Path | None,
    engine: Engine,
    **options: Any,
) -> None:
    """Explain the responses of LVLMs to the samples of a benchmark, or to one picture of your own.

    For a benchmark give --benchmark and --split: every record is saved to --out at once, and the same command
    resumes a run that was stopped. For a picture give --image and --question: maps, overlays and
    a panel of all methods are written to --out.
    """
    from medfocus_bench.runs.methods import check_methods, choose_methods
    from medfocus_bench.runs.tuning import read_tuning

    _check_options(image is not None, engine, options)
    config = conditions_of(target, options)
    methods = choose_methods(names, assignments)
    device = engine.device_here(options["device"])
    check_methods(methods, options["lvlms"], device, options["quantise"])
    for file in tuned:
        read_tuning(file)
    if image is None:
        _attribute_benchmark(methods, tuned, config, engine, options)
    else:
        _attribute_picture(image, methods, tuned, config, options)


@click.command("tune", cls=Command)
@click.argument("method")
@lvlms_option()
@benchmark_option(required=True)
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Default: direct.")
@click.option(
    "--out",
    required=True,
    type=OUTPUT_FILE,
    help="JSON file; one of the same method and benchmark is added to.",
)
@limit_option("samples of dev")
@decoding_option()
@model_options
@engine_options()
def tune_command(
    method: str,
    lvlms: tuple[str, ...],
    benchmark: str,
    modes: tuple[str, ...],
    out: Path,
    limit: int | None,
    engine: Engine,
    **options: Any,
) -> None:
    """Choose the settings of METHOD for an LVLM on the dev split of a benchmark, and on no other."""
    from medfocus_bench.attribution.protocol import refuse_quantised
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.lock import exclusive
    from medfocus_bench.lvlm.registry import lvlm_key
    from medfocus_bench.runs.methods import metadata, refuse_families
    from medfocus_bench.runs.settings import write_document
    from medfocus_bench.runs.tune import dev_samples, tunable, tune
    from medfocus_bench.runs.tuning import open_tuning

    about = metadata(tunable(method), method)
    refuse_quantised([tunable(method)], options["quantise"] is not None)
    check_models(lvlms, engine.device_here(options["device"]), options["quantise"])
    opened = load_benchmark(benchmark)
    sources = lvlms or tuple(sorted({s.lvlm for s in opened.samples if s.split == "dev"}))
    refuse_families([tunable(method)], sources)
    wanted = list(dict.fromkeys(modes)) or ["direct"]
    config = conditions_of("response", options)
    with exclusive(out):
        tuning = open_tuning(out, about.name, about.version, opened)
        for source in dict.fromkeys(sources):
            lvlm = lvlm_key(source)
            for mode in wanted:
                dev_samples(opened, lvlm, mode)
            say(config.placed(lvlm))
            for mode in wanted:
                part = tune(
                    method,
                    source,
                    opened,
                    mode,
                    limit=limit,
                    config=config,
                    engine=engine,
                    progress=show_progress,
                )
                tuning = tuning.extended(lvlm, mode, part)
                write_document(out, tuning)
                print_tables([], [_candidates_table(f"{about.title} for {lvlm}, {mode}", part)])
    click.echo(str(out))


@click.command("pack", cls=Command)
@click.argument("runs", nargs=-1, required=True, type=INPUT)
@click.option("--method", help="Which method of the runs. Default: the only one.")
@click.option("--out", "-o", required=True, type=OUTPUT_FOLDER, help="Submission to write.")
@benchmark_option(help="The benchmark, where it is no longer where the run found it.")
@click.option(
    "--submitter",
    "submitters",
    multiple=True,
    metavar="NAME",
    help="Who answers for it, as NAME or 'NAME <https://github.com/ACCOUNT>'; may be repeated.",
)
@click.option("--version", help="Of the method. Default: that of the package.")
@click.option("--display-name", help="Of the method in tables. Default: its title.")
@click.option("--licence", help="Of the method.")
@click.option("--partial", is_flag=True, help="Accept missing samples, which score 0.")
@click.option("--keep", is_flag=True, help="Store maps as they are, not averaged to 64 cells a side.")
@click.option("--overwrite", is_flag=True, help="Replace the folder if it is a submission.")
def pack_command(runs: tuple[Path, ...], benchmark: str | None, **options: Any) -> None:
    """Make a submission of the records of RUNS, folders that `attribute` wrote."""
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.runs.pack import pack

    check_new(options["out"], overwrite=options["overwrite"])
    opened = load_benchmark(benchmark) if benchmark else None
    options["submitters"] = [submitter_of(text) for text in options["submitters"]] or ["anonymous"]
    packed = pack(runs, benchmark=opened, **options)
    share = f"{packed.attributed} of {packed.samples} samples of {packed.covers}"
    click.echo(f"{packed.folder}: {packed.method.title} {packed.method.version}, {share}")
    empty = packed.attributed - packed.explained
    click.echo(f"{packed.explained} explain something, {empty} nothing; {packed.failed} failed")
    if packed.thinning is not None:
        click.echo(_thinning_line(packed.thinning))
    for name, (mean, count) in sorted(packed.diagnostics.items()):
        click.echo(f"{name}: {mean:.4g} (mean of {count})")


def _thinning_line(thinning: Thinning) -> str:
    """How many maps are coarser than the run's, and the effect on the score by which rows are ranked."""
    moved = f"{thinning.before:z.3f} before and {thinning.after:z.3f} after"
    return (
        f"{thinning.maps} maps were averaged to 64 cells a side and stored as float16 (--keep stores them as "
        f"they are): evidence AP of {thinning.measured} of them is {moved}"
    )


def submitter_of(text: str) -> dict[str, str]:
    """Parse NAME, or NAME <URL> as in a commit's author line."""
    name, opened, rest = text.partition("<")
    if not opened:
        return {"name": text.strip()}
    return {"name": name.strip(), "url": rest.strip().removesuffix(">")}


_BENCHMARK_ONLY = ("benchmark", "splits", "configs", "limit", "shard", "wait")
_PICTURE_ONLY = ("question", "response", "finding", "overwrite")
_FLAGS = {"splits": "split", "configs": "config"}


def _check_options(picture: bool, engine: Engine, options: dict[str, Any]) -> None:
    """Refuse options of the other kind of work, and ask for those that this one needs."""
    from medfocus_bench.engine.protocol import InProcess
    from medfocus_bench.errors import InputError

    for name in _BENCHMARK_ONLY if picture else _PICTURE_ONLY:
        if options[name] not in (None, (), False):
            rule = "does not go with --image" if picture else "goes with --image only"
            raise InputError(f"--{_FLAGS.get(name, name)} {rule}")
    if picture and not isinstance(engine, InProcess):
        raise InputError("--engine and --workers do not go with --image, which this process explains")
    if picture and not (options["question"] or "").strip():
        raise InputError("--image needs --question, the question to the LVLM about the picture")
    if picture and len(options["lvlms"]) != 1:
        raise InputError("--image needs one LVLM, with --lvlm")
    if not picture and (options["benchmark"] is None or not options["splits"]):
        raise InputError("give --benchmark and --split, or --image for a picture of your own")


def check_models(lvlms: Iterable[str], device: str, quantise: str | None = None) -> None:
    """Refuse LVLMs and a device that are not there, before any is loaded."""
    from medfocus_bench.engine.devices import check_device
    from medfocus_bench.lvlm.registry import check_lvlms

    check_lvlms(lvlms)
    check_device(device, quantise)


def conditions_of(target: str, options: dict[str, Any]) -> RunConfig:
    """The settings of a run; of an option that a command lacks, the default."""
    from medfocus_bench.errors import InputError
    from medfocus_bench.runs.config import RunConfig

    names = ("seed", "device", "dtype", "framing", "batch", "quantise", "decoding", "pixels")
    common = {name: options[name] for name in names if name in options}
    if target in ("response", "verdict"):
        return RunConfig(target=target, **common)  # type: ignore[arg-type]
    span = re.fullmatch(r"(\d{1,6}):(\d{1,6})", target)
    if span is None or int(span[1]) >= int(span[2]):
        raise InputError(
            f"--target {target}: give response, verdict, or tokens of the response as START:STOP"
        )
    return RunConfig(target=(int(span[1]), int(span[2])), **common)


def _attribute_benchmark(
    methods: Sequence[MethodSpec],
    tuned: Iterable[Path],
    config: RunConfig,
    engine: Engine,
    options: dict[str, Any],
) -> None:
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.runs.attribute import attribute
    from medfocus_bench.runs.methods import with_tuning
    from medfocus_bench.runs.shards import Shard

    shard = Shard.parse(options["shard"]) if options["shard"] is not None else None
    benchmark = load_benchmark(options["benchmark"])
    found = attribute(
        with_tuning(methods, tuned, benchmark),
        benchmark,
        options["out"],
        config=config,
        shard=shard,
        wait=options["wait"],
        engine=engine,
        progress=show_progress,
        say=say,
        **{name: options[name] for name in ("splits", "lvlms", "configs", "limit")},
    )
    outcomes = found.outcomes
    if shard is not None and not outcomes:
        click.echo(
            f"{found.folder}: no sample is in shard {shard.number} of {shard.count}; there is nothing to do"
        )
        return
    print_tables([], [_outcome_table(outcomes, found.folder)])
    for outcome in outcomes:
        if outcome.reasons:
            count = f"{len(outcome.reasons)} of {outcome.samples} samples failed"
            where = f"{outcome.method}, {outcome.lvlm} {outcome.split}"
            warn(f"{where}: {count}, the first with: {outcome.reasons[0]}")
    if all(outcome.existing + outcome.new == 0 for outcome in outcomes):
        sys.exit(2)


def _attribute_picture(
    image: Path,
    methods: Sequence[MethodSpec],
    tuned: Iterable[Path],
    config: RunConfig,
    options: dict[str, Any],
) -> None:
    from medfocus_bench.lvlm.registry import lvlm_key
    from medfocus_bench.runs.methods import with_tuning
    from medfocus_bench.runs.picture import (
        check_for_picture,
        check_free,
        explain_picture,
        read_picture,
        write_picture,
    )

    out: Path = options["out"]
    check_free(out, overwrite=options["overwrite"])
    picture = read_picture(image)
    check_for_picture(methods)
    say(config.placed(lvlm_key(options["lvlms"][0])))
    explained = explain_picture(
        picture,
        options["question"],
        config.load(options["lvlms"][0]),
        with_tuning(methods, tuned, None),
        response=options["response"],
        finding=options["finding"],
        config=config,
        progress=show_progress,
    )
    write_picture(explained, out, overwrite=options["overwrite"])
    errors = [f"{one.method.name}: {one.error}" for one in explained.explanations if one.error is not None]
    for error in errors:
        warn(error)
    click.echo(one_line(f"{explained.lvlm} answers: {explained.response}"))
    click.echo(str(out / "panel.png"))
    if len(errors) == len(explained.explanations):
        sys.exit(2)


def _outcome_table(outcomes: Iterable[PartOutcome], out: Path) -> Any:
    from medfocus_bench.tables import Row, Table

    rows = []
    for part in outcomes:
        pace = f"{part.seconds / part.new:.3g}" if part.new and part.seconds else ""
        counts = (part.samples, part.existing, part.new, len(part.reasons))
        rows.append(Row((f"{part.method}, {part.lvlm} {part.split}", *map(str, counts), pace)))
    header = ("", "samples", "had", "made", "failed", "s/sample")
    return Table(f"Records in {out}", header, tuple(rows))


def _candidates_table(title: str, part: TunedPart) -> Any:
    from medfocus_bench.tables import Row, Table

    rows = []
    for number, candidate in enumerate(part.candidates):
        settings = ", ".join(f"{name} = {value}" for name, value in candidate.settings.items())
        score = f"{candidate.evidence_ap:.3f} [{candidate.low:.3f}, {candidate.high:.3f}]"
        rows.append(Row((settings or "default", score, str(candidate.failed or "")), quiet=number > 0))
    note = f"Mean over {part.samples} samples of {part.patients} patients of dev, with 95 % intervals."
    return Table(title, ("settings", "Evidence AP", "failed"), tuple(rows), (note,))
