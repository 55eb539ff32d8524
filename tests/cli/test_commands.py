"""Each command does what its function does, and prints it."""

from __future__ import annotations

import json

import pytest

from medfocus_bench import evaluate, load_benchmark
from medfocus_bench.evaluation.report import Report, report_json_schema
from medfocus_bench.submission.schema import submission_json_schema

from ..toy import write_toy
from .running import run

QUICK = ("--resamples", "200")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder, patients=8)
    return folder


def test_evaluate_prints_what_the_function_computes(toy):
    submission, benchmark = toy / "submissions" / "oracle", toy / "benchmark"
    status, shown, _ = run("evaluate", submission, "-b", benchmark, "--format", "json", *QUICK)
    assert status == 0
    assert Report.model_validate_json(shown) == evaluate(submission, benchmark, resamples=200)


def test_the_table_shows_the_method_its_interval_and_every_null_and_brief_the_first_one_only(toy):
    status, shown, _ = run("evaluate", toy / "submissions" / "noisy", "-b", toy / "benchmark", *QUICK)
    assert status == 0
    for text in ("noisy", "Evidence AP", "null: Whole image", "null: Mean expert map", "  nodule", "macro"):
        assert text in shown
    assert max(map(len, shown.splitlines())) <= 168
    _, brief, _ = run("evaluate", toy / "submissions" / "noisy", "-b", toy / "benchmark", "--brief", *QUICK)
    assert "Evidence AP" in brief
    assert ("AUROC" in shown, "AUROC" in brief) == (True, False)


@pytest.mark.parametrize("suffix", ["json", "md"])
def test_out_writes_the_report_by_its_suffix(toy, tmp_path, suffix):
    out = tmp_path / "new" / f"report.{suffix}"
    submission = toy / "submissions" / "shifted"
    status, _, _ = run("evaluate", submission, "-b", toy / "benchmark", "--out", out, *QUICK)
    assert status == 0
    text = out.read_text()
    if suffix == "json":
        assert Report.model_validate_json(text).method.name == "shifted"
    else:
        assert "| shifted | " in text
        assert "null: Whole image" in text
    assert list(out.parent.iterdir()) == [out]


def test_out_with_another_suffix_is_refused_before_anything_is_computed(toy, tmp_path):
    status, _, error = run(
        "evaluate", toy / "submissions/noisy", "-b", toy / "benchmark", "--out", tmp_path / "r.txt"
    )
    assert status == 2
    assert ".json or .md" in error


def test_markdown_escapes_what_a_submission_says_of_itself(toy, tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    source = toy / "submissions" / "noisy"
    document = json.loads((source / "submission.json").read_text())
    document["method"]["display_name"] = "<script>alert(1)</script> | [x](javascript:1)\n# big"
    (folder / "submission.json").write_text(json.dumps(document))
    (folder / "maps.safetensors").write_bytes((source / "maps.safetensors").read_bytes())
    words = ("evaluate", folder, "-b", toy / "benchmark", "--format", "markdown", "--no-nulls", *QUICK)
    status, shown, _ = run(*words)
    if status == 0:
        assert "<script>" not in shown.replace("\\<", "")
        assert "[x](" not in shown.replace("\\[", "")
        assert not any(line.startswith("# ") for line in shown.splitlines())


def test_compare_prints_differences_with_corrected_p_values(toy):
    folder = toy / "submissions"
    words = ("compare", folder / "oracle", folder / "noisy", "null:whole-image", "-b", toy / "benchmark")
    status, shown, _ = run(*words, *QUICK)
    assert status == 0
    assert "oracle - noisy" in shown
    assert "p (Holm)" in shown
    status, shown, _ = run(*words, *QUICK, "--format", "json")
    assert len(json.loads(shown)["differences"]) == 3


@pytest.mark.parametrize("suffix", ["json", "md"])
def test_compare_writes_its_result_by_suffix(toy, tmp_path, suffix):
    out = tmp_path / f"comparison.{suffix}"
    words = ("compare", "null:centre-box", "null:whole-image", "-b", toy / "benchmark", "--metric", "IoU")
    status, shown, _ = run(*words, *QUICK, "--out", out)
    assert status == 0
    assert "Paired differences" in shown
    if suffix == "json":
        assert json.loads(out.read_text())["differences"][0]["metric"] == "iou"
    else:
        assert "| null:centre-box - null:whole-image | iou |" in out.read_text()


def test_evaluate_says_what_to_do_with_a_null_control(toy):
    status, _, error = run("evaluate", "null:whole-image", "-b", toy / "benchmark")
    assert status == 2
    assert "`compare` takes one, and `null` writes one as a submission" in error


def test_info_shows_what_a_submission_quotes(toy):
    status, shown, _ = run("info", toy / "benchmark")
    shown_values = dict(line.split(":", 1) for line in shown.splitlines())
    benchmark = load_benchmark(toy / "benchmark")
    assert status == 0
    assert {name: value.strip() for name, value in shown_values.items()} == {
        "name": "toy",
        "version": benchmark.version,
        "fingerprint": benchmark.fingerprint,
        "configs": "toy",
        "splits": "direct",
        "derived": "control",
        "samples": "32",
        "patients": "8",
    }


def test_null_writes_a_submission_that_evaluate_takes(toy, tmp_path):
    target = tmp_path / "null"
    words = ("null", "centre-box", "-b", toy / "benchmark", "--out", target)
    assert run(*words)[0] == 0
    assert run(*words)[0] == 2
    assert run(*words, "--overwrite", "--split", "direct")[0] == 0
    assert run("validate", target, "-b", toy / "benchmark")[0] == 0
    assert run(*words, "--overwrite", "--split", "nowhere")[0] == 2


def test_validate_says_that_a_sound_submission_is_sound(toy):
    status, shown, error = run("validate", toy / "submissions" / "noisy", "-b", toy / "benchmark")
    assert (status, error) == (0, "")
    assert "sound" in shown


@pytest.mark.parametrize(
    ("name", "schema"), [("submission", submission_json_schema()), ("report", report_json_schema())]
)
def test_the_published_schemas_are_those_of_the_code(name, schema, pytestconfig):
    root = pytestconfig.rootpath
    _, shown, _ = run("schema", name)
    home = {"submission": "submission", "report": "evaluation"}[name]
    assert json.loads(shown) == schema
    assert (root / "docs" / f"{name}.schema.json").read_text() == shown
    assert (root / "medfocus_bench" / home / f"{name}.schema.json").read_text() == shown


def test_an_unknown_benchmark_is_an_error_that_says_what_to_give(toy):
    status, _, error = run("evaluate", toy / "submissions" / "noisy", "-b", "phantom-menace")
    assert status == 2
    assert len(error.splitlines()) == 1
    assert "phantom-menace" in error
