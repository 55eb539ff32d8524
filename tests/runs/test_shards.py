"""Runs that are split into shards: who explains what, and how the shards come together again."""

from __future__ import annotations

import json
import shutil
import threading
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfocus_bench import lock
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import evaluate
from medfocus_bench.lock import exclusive, read_holder
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.paper.runs import RunResults, RunSpec, run_missing
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods
from medfocus_bench.runs.pack import pack
from medfocus_bench.runs.records import read_records
from medfocus_bench.runs.run import is_run, open_run
from medfocus_bench.runs.shards import Shard, Shards, method_places
from medfocus_bench.submission.reader import open_submission
from tests.cli.running import refused, run

from .methods import HERE, Counting

COUNTING = f"{HERE}:Counting"


def explain(small, out, *names, **options):
    options = {"splits": ["direct"], "lvlms": ["phantom_qwen"]} | options
    return attribute(choose_methods(names or [COUNTING], ()), small, out, **options)


def in_shards(small, out, count, *names, **options):
    return [explain(small, out, *names, shard=Shard(n, count), **options) for n in range(1, count + 1)]


def maps(run):
    return {one.sample_id: one.saliency for one in run}


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for key, saliency in expected.items():
        np.testing.assert_array_equal(found[key], saliency)


@given(
    st.lists(st.tuples(st.sampled_from(["nih", "vindr"]), st.integers(0, 10**9)), max_size=50),
    st.integers(1, 30),
)
def test_each_picture_is_in_exactly_one_shard(pictures, count):
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for source, index in pictures:
        sample = SimpleNamespace(source=source, index=index)
        assert sum(sample in shard for shard in shards) == 1


def test_all_samples_of_a_picture_are_in_one_shard_and_the_shards_are_of_similar_size():
    samples = load_benchmark("phantom", split="dev").samples
    sizes = []
    for number in range(1, 5):
        mine = [sample for sample in samples if sample in Shard(number, 4)]
        pictures = {(sample.source, sample.index) for sample in mine}
        assert mine == [sample for sample in samples if (sample.source, sample.index) in pictures]
        sizes.append(len(mine))
    assert sum(sizes) == len(samples)
    assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize("text", ["1/1", "3/8", "8/8", "100000/100000"])
def test_a_shard_is_written_as_number_and_count(text):
    shard = Shard.parse(text, {})
    assert f"{shard.number}/{shard.count}" == text


@pytest.mark.parametrize(
    "text", ["", "3", "0/8", "9/8", "-1/8", "1/0", "1/100001", "1 /8", "1/8/2", "a/b", "\u0661/8", "Slurm"]
)
def test_other_text_is_refused_with_the_way_out(text):
    with pytest.raises(InputError, match=r"--shard .*: give NUMBER/COUNT, .* or slurm"):
        Shard.parse(text, {})


def slurm(task, first, count):
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
    return dict(zip(names, (task, first, count), strict=True))


@pytest.mark.parametrize("first", ["0", "1", "7"])
def test_the_tasks_of_a_slurm_array_are_the_shards_wherever_it_begins(first):
    tasks = [slurm(str(int(first) + n), first, "3") for n in range(3)]
    assert [Shard.parse("slurm", task) for task in tasks] == [Shard(n, 3) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, r"SLURM_ARRAY_TASK_COUNT are not all set; start it with `sbatch --array=1-COUNT`"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "are not all set"),
        (slurm("one", "1", "3"), "are not all set"),
        (slurm("8", "1", "3"), r"task 8 is not one of 3 from 1; give an array without gaps"),
        (slurm("0", "1", "3"), "without gaps"),
        (slurm("1", "1", "0"), "without gaps"),
    ],
)
def test_a_task_that_is_not_of_an_array_without_gaps_is_refused(variables, said):
    with pytest.raises(InputError, match=said):
        Shard.parse("slurm", variables)


def test_shards_hold_what_a_run_that_is_not_split_holds(small, tmp_path):
    names = [COUNTING, "random-map", "mean-map"]
    explain(small, tmp_path / "whole", *names, lvlms=(), splits=["direct", "dev"])
    in_shards(small, tmp_path / "split", 3, *names, lvlms=(), splits=["direct", "dev"])
    assert {path.name for path in (tmp_path / "split").iterdir()} == {f"shard-{n}-of-3" for n in (1, 2, 3)}
    assert len(Counting.calls) == 2 * 11
    for name in ("counting", "null-random-map", "null-mean-map"):
        check_same(maps(open_run(tmp_path / "split", name)), maps(open_run(tmp_path / "whole" / name)))


def test_an_empty_shard_is_said_and_is_a_success(small, tmp_path):
    n = next(n for n in range(1, 51) if not any(sample in Shard(n, 50) for sample in small.samples))
    words = ("--method", "random-map", "-b", small.folder, "--split", "direct", "--out", tmp_path)
    status, shown, error = run("attribute", *words, "--shard", f"{n}/50")
    assert (status, error) == (0, "")
    assert shown.endswith(f"/shard-{n}-of-50: no sample is in shard {n} of 50; there is nothing to do\n")


def test_pack_and_evaluate_find_the_shards_of_a_run_also_where_one_is_empty(small, tmp_path):
    explain(small, tmp_path / "whole", lvlms=())
    runs = in_shards(small, tmp_path / "split", 12, lvlms=())
    assert any(not of_shard.outcomes for of_shard in runs)
    assert is_run(tmp_path / "split")
    for name in ("whole", "split"):
        packed = pack(tmp_path / name, tmp_path / f"packed-{name}")
        assert (packed.attributed, packed.samples) == (6, 6)
    packed = [open_submission(tmp_path / f"packed-{name}", small) for name in ("whole", "split")]
    check_same(*(maps(submission) for submission in packed))
    scores = [
        evaluate(open_run(tmp_path / name), small, nulls=False, resamples=100).headline["evidence_ap"]
        for name in ("whole", "split")
    ]
    assert scores[0] == scores[1]


def test_one_method_of_several_in_shards_is_evaluated_by_its_name(small, tmp_path):
    in_shards(small, tmp_path / "run", 2, "random-map", "centre-box", lvlms=())
    words = ("evaluate", tmp_path / "run", "-b", small.folder, "--no-nulls", "--resamples", 100)
    assert "holds null-centre-box, null-random-map; choose one with --method" in refused(*words)
    status, shown, _ = run(*words, "--method", "centre-box", "--format", "json")
    assert (status, json.loads(shown)["method"]["name"]) == (0, "null-centre-box")
    pack(tmp_path / "run", tmp_path / "packed", method="centre-box", partial=True)
    other = ("evaluate", tmp_path / "packed", *words[2:], "--method", "centre-box")
    assert "packed is not a run of several; leave it out" in refused(*other)


def test_shards_that_are_missing_are_named_unless_they_may_be(small, tmp_path):
    in_shards(small, tmp_path / "run", 4)
    for number in (2, 3):
        shutil.rmtree(tmp_path / "run" / f"shard-{number}-of-4")
    said = (
        r"run: 2 of 4 shards hold nothing of counting: 2, 3; make each, as with `attribute --shard 2/4 --out"
    )
    for opened in (
        lambda: open_run(tmp_path / "run"),
        lambda: pack(tmp_path / "run", tmp_path / "packed"),
        lambda: method_places(tmp_path / "run", "counting"),
    ):
        with pytest.raises(InputError, match=said):
            opened()
    assert "2, 3" in refused("evaluate", tmp_path / "run", "-b", small.folder)
    there = len(read_records(Shards.of(tmp_path / "run").of_method("counting")))
    assert pack(tmp_path / "run", tmp_path / "packed", partial=True).attributed == there
    one = tmp_path / "run" / "shard-1-of-4"
    assert open_run(one).folder == one / "counting"  # a shard alone is asked for by its own folder


def test_a_run_has_shards_of_one_count_only(small, tmp_path):
    explain(small, tmp_path / "run", "random-map", shard=Shard(1, 2))
    said = r"run: holds shards of 2 and of 3, which share samples; split a run into one number"
    with pytest.raises(InputError, match=said):
        explain(small, tmp_path / "run", "random-map", shard=Shard(1, 3))
    (tmp_path / "run" / "shard-1-of-3").mkdir()
    for opened in (open_run, lambda run: pack(run, tmp_path / "packed")):
        with pytest.raises(InputError, match=said):
            opened(tmp_path / "run")


@pytest.mark.parametrize("first", ["whole", "shards"])
def test_a_run_is_finished_with_shards_or_without_and_nothing_is_explained_twice(small, tmp_path, first):
    if first == "whole":
        explain(small, tmp_path, limit=2)
        new = [sum(o.new for o in one.outcomes) for one in in_shards(small, tmp_path, 2)]
        assert sum(new) == 2
    else:
        explain(small, tmp_path, shard=Shard(1, 2))
        (outcome,) = explain(small, tmp_path).outcomes
        assert (outcome.samples, outcome.existing + outcome.new) == (4, 4)
    assert len(Counting.calls) == 4
    assert len(open_run(tmp_path).records) == 4
    assert len(list(explain(small, tmp_path))) == 4  # the result of a run reads the shards, too
    assert pack(tmp_path, tmp_path / "packed", partial=True).attributed == 4


def test_who_writes_to_the_whole_run_and_who_writes_to_a_shard_keep_each_other_out(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(lock, "_PROBE_SECONDS", 0.0)
    names = [f"shard-{n}-of-2/null-random-map" for n in (1, 2)]
    explain(small, tmp_path, "random-map", shard=Shard(1, 2))
    with exclusive(tmp_path / names[0]):
        with pytest.raises(InputError, match=rf"{names[0]}: process .* writes to it"):
            explain(small, tmp_path, "random-map")
        explain(small, tmp_path, "random-map", shard=Shard(2, 2))  # shards do not mind each other
    with exclusive(tmp_path / "null-random-map"):
        for number in (1, 2):
            with pytest.raises(InputError, match=r"null-random-map: process .* writes to it"):
                explain(small, tmp_path, "random-map", shard=Shard(number, 2))


@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
def test_who_waits_holds_nothing_that_another_may_wait_for(small, tmp_path, shard, monkeypatch):
    """Two runs of the same methods in another order, or of a shard and of the whole, would wait for ever."""
    monkeypatch.setattr(lock, "_PROBE_SECONDS", 0.0)
    names = ["random-map", "centre-box"]  # not in the order of their folders
    mine = tmp_path if shard is None else shard.folder(tmp_path)
    waiting = threading.Thread(
        target=explain, args=(small, tmp_path, *names), kwargs={"shard": shard, "wait": True}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with exclusive(tmp_path / "null-centre-box"):
            waiting.start()
            while not caught and waiting.is_alive():
                time.sleep(0.01)
            assert read_holder(mine / "null-random-map") is None
            assert shard is None or read_holder(mine / "null-centre-box") is None
        waiting.join()
    assert [str(one.message).split(": ")[0] for one in caught] == [str(tmp_path / "null-centre-box")]
    assert all((mine / f"null-{name}" / "settings.json").is_file() for name in names)


def test_shards_of_other_settings_do_not_go_together(small, tmp_path):
    attribute(choose_methods([COUNTING], ["scale=2"]), small, tmp_path, splits="direct", shard=Shard(1, 2))
    with pytest.raises(InputError, match=r"shard-1-of-2/counting: was made with .*scale 2\.0, and this run"):
        explain(small, tmp_path)
    explain(small, tmp_path, shard=Shard(2, 2), lvlms=())
    with pytest.raises(InputError, match=r"shard-2-of-2/counting: was made with"):
        open_run(tmp_path)


def test_the_tables_of_the_paper_read_the_shards_of_a_run_and_extend_it(small, tmp_path):
    (method,) = choose_methods(["random-map"], ())
    spec = RunSpec("random", method, small, ("direct",), tmp_path / "run")
    config = ReproduceConfig(benchmark=small, out=tmp_path, runs=tmp_path / "run", lvlms=["phantom_qwen"])
    samples = config.selected(spec.splits, small)
    explain(small, spec.run, "random-map", shard=Shard(1, 2), limit=2)
    with pytest.raises(InputError, match=r"1 of 2 shards hold nothing of null-random-map: 2; make each"):
        run_missing([spec], config)
    explain(small, spec.run, "random-map", shard=Shard(2, 2), limit=2)
    assert len(RunResults.read(spec).missing(samples)) == 2
    (outcome,), _ = run_missing([spec], config)
    assert (outcome.existing, outcome.new) == (2, 2)
    results = RunResults.read(spec)
    assert results.missing(samples) == []
    assert results.reason(samples) is None
