"""The checks of a submission folder, and the row of a sound one."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.leaderboard.result import read_results
from medfocus_bench.leaderboard.review.checks import (
    MAX_DOCUMENT_BYTES,
    MAX_MAPS_BYTES,
    check_submission,
    comparable,
)
from medfocus_bench.leaderboard.review.rank_preview import standing, standing_tables
from medfocus_bench.leaderboard.review.review import refused_markdown
from medfocus_bench.leaderboard.review.unicode_safety import neutral
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.leaderboard.site import http_link
from medfocus_bench.submission.writer import SubmissionWriter
from medfocus_bench.tables import render_markdown

from ..cli.running import run
from ..conftest import METHOD, make_row, opened_files
from ..submission.documents import safetensors
from .conftest import REPOSITORY
from .flow import belongs_to, edit


@pytest.fixture
def committed(original):
    return read_results(original[0] / "repository" / "leaderboard" / "results")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A sound submission at `submissions/blurred`."""
    target = tmp_path / "submissions" / "blurred"
    shutil.copytree(original[0] / "new" / "blurred", target)
    return target


def problems_of(folder, benchmark, titles=None) -> list[str]:
    return list(check_submission(folder, benchmark, titles).problems)


def only_problem(folder, benchmark, titles=None) -> str:
    problems = problems_of(folder, benchmark, titles)
    assert len(problems) == 1, problems
    assert problems[0].startswith(str(folder))
    return problems[0]


def submit(folder, original, *words):
    results = original[0] / "repository" / "leaderboard" / "results"
    return run("submit", folder, "-b", original[1].folder, "--results", results, *words)


def test_a_sound_folder_has_no_problem(folder, benchmark):
    assert problems_of(folder, benchmark, {"blurred": "Blurred", "oracle": "Oracle"}) == []


@pytest.mark.parametrize(
    "name", ["Blurred", "blurred one", "-blurred", "a" * 65, "blurred.1", "bl\u00fcrred"]
)
def test_a_folder_whose_name_is_no_plain_name_is_refused(folder, benchmark, name):
    moved = folder.rename(folder.with_name(name))
    problems = problems_of(moved, benchmark)
    assert any("the name of the folder is that of the method" in problem for problem in problems)


def test_the_names_and_the_family_of_null_controls_are_reserved(folder, benchmark):
    moved = folder.rename(folder.with_name("null-blurred"))
    edit(moved, lambda document: document["method"].update(name="null-blurred", family="null"))
    problems = problems_of(moved, benchmark)
    assert "names that start with null- are those of the null controls" in problems[0]
    assert "/method/family: null is the family of the null controls" in problems[1]


def test_a_name_that_differs_from_anothers_in_case_only_is_refused(folder, benchmark):
    assert "differs from the folder BLURRED in case only" in "".join(
        problems_of(folder, benchmark, {"BLURRED": "Something"})
    )


def test_the_folder_and_the_method_have_one_name(folder, benchmark):
    edit(folder, lambda document: document["method"].update(name="other-name"))
    assert "/method/name: is 'other-name', the folder is 'blurred'" in only_problem(folder, benchmark)


@pytest.mark.parametrize(
    ("title", "other"),
    [
        ("Grad-CAM", "Grad-CAM"),
        ("GRAD CAM", "Grad-CAM"),
        ("grad\u2010cam", "Grad-CAM"),
        ("\uff27rad-CAM", "Grad-CAM"),
        ("\u13de\u13a1\u13e2", "LRP"),  # Cherokee
        ("\ua4e1\ua4e3\ua4d1", "LRP"),  # Lisu
        ("\ua4e3\ua4f2\ua4e2\ua4f0", "RISE"),
        ("lntegrated Gradients", "Integrated Gradients"),
        ("integrated gradients", "Integrated Gradients"),
        ("RlSE", "RISE"),
        ("R1SE", "RISE"),
        ("0cclusion", "Occlusion"),
        ("\u0280\u026a\ua731\u1d07", "RISE"),  # small capitals
        ("L\u1d19p", "LRP"),  # a reversed one
        ("\U0001d40b\U0001d411\U0001d40f", "LRP"),  # mathematical
        ("Attentlon R0llout", "attention-rollout"),
        ("Tirne", "Time"),
    ],
)
def test_a_title_is_not_taken_for_another_one_at_a_glance(folder, benchmark, title, other):
    edit(folder, lambda document: document["method"].update(display_name=title))
    said = only_problem(folder, benchmark, {"other": other})
    assert "/method/display_name: " in said
    assert "is what other is called; take another" in said
    assert comparable(title) == comparable(other)


def test_no_two_of_the_reference_submissions_are_called_alike():
    titles = [
        json.loads(path.read_bytes())["report"]["method"]
        for path in sorted((REPOSITORY / "leaderboard" / "results").glob("*.json"))
    ]
    skeletons = {comparable(method.get("display_name") or method["name"]) for method in titles}
    assert len(skeletons) == len(titles) > 15


REFUSED_TITLES = {
    "Blurred (official)": "has the word official, which the leaderboard alone gives",
    "Verified": "has the word verified",
    "0fficial blur": "has the word official",
    "\u1d20erified": "has the word verified",
    "MedFocus 3": "is named like the method of this repository, MedFocus",
    "Med-Focus, ours": "is named like the method",
    "Rnedfocus++": "is named like the method",
    "Z" + "\u0301" * 20: "a letter has over 2 marks",
    "+++": "has no letter or digit; give a name",
    "\u2014": "has no letter or digit; give a name",
    "\u2764\ufe0f": "has no letter or digit; give a name",
    "M\u0435dian+": "mixes letters of two scripts that look alike",
    "Med\u03bfid": "mixes letters of two scripts that look alike",
    "L\u0280P \u13a1ISE": "mixes letters of two scripts that look alike",
    "M\u0332\u0435\u0332d": "mixes letters of two scripts that look alike",
    "\u03b2LRP": "mixes letters of two scripts that look alike",
}
"""Claims that the repository alone can make, and what is taken for something else by the eye."""


@pytest.mark.parametrize("title", REFUSED_TITLES)
def test_a_title_claims_nothing_and_reads_as_what_it_is(folder, benchmark, title):
    edit(folder, lambda document: document["method"].update(display_name=title))
    problem = only_problem(folder, benchmark)
    assert "/method/display_name: " in problem
    assert REFUSED_TITLES[title] in problem


@pytest.mark.parametrize(
    ("name", "said"),
    [("Z" + "\u0301" * 3, "a letter has over 2 marks"), ("M\u0435dian", "mixes letters of two scripts")],
)
def test_the_name_of_a_submitter_reads_as_what_it_is(folder, benchmark, name, said):
    edit(folder, lambda document: document["submitters"][0].update(name=name))
    assert f"/submitters/0/name: {said}" in only_problem(folder, benchmark).replace(f"{name!a} ", "")


def test_the_reference_submission_may_be_called_as_it_is(folder, benchmark):
    moved = folder.rename(folder.with_name("medfocus"))
    edit(moved, lambda document: document["method"].update(name="medfocus", display_name="MedFocus"))
    assert problems_of(moved, benchmark) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com@example.org/",
        "https://github.com:443@example.org/",
        "https://ada:secret@example.org",
        "https://github.com\\@example.org/",
        "https://",
        "https:///github.com",
        "javascript://github.com/%0aalert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "//example.org",
        "http://a b",
        " https://a",
        'https://a"onclick=',
    ],
)
def test_a_link_leads_where_it_seems_to_lead(folder, benchmark, url):
    for field in ("paper", "code"):
        edit(folder, lambda document, given=field: document["method"].update({given: url}))
        said = only_problem(folder, benchmark)
        assert said.endswith(f"/method/{field}: should be http:// or https:// and a host, no user")
        edit(folder, lambda document, given=field: document["method"].pop(given))
    assert http_link(url) is None


@pytest.mark.parametrize(
    "url", ["https://github.com/ada/x@v1", "http://example.org:8080?a=b&c=@d#e", "https://a.b"]
)
def test_an_at_sign_may_stand_behind_the_host(folder, benchmark, url):
    edit(folder, lambda document: document["method"].update(code=url))
    assert problems_of(folder, benchmark) == []
    assert (http_link(url), http_link(url.upper())) == (url, url.upper())


@pytest.mark.parametrize("title", ["Grad-CAM++", "Grad-CAM\uff0b"])
def test_a_plus_tells_two_methods_apart(folder, benchmark, title):
    edit(folder, lambda document: document["method"].update(display_name=title))
    assert problems_of(folder, benchmark, {"grad-cam": "Grad-CAM"}) == []
    assert "is what grad-cam-plus-plus is called" in only_problem(
        folder, benchmark, {"grad-cam-plus-plus": title}
    )


def test_dev_is_not_ranked(make_benchmark, tmp_path):
    bench = make_benchmark([make_row(number) for number in range(2)], split="dev")
    target = tmp_path / "submissions" / "probe"
    with SubmissionWriter(target, METHOD, bench, submitters=["t"]) as writer:
        for sample in bench.samples:
            writer.add(Attribution(sample.sample_id, saliency=np.eye(4)))
    assert "/benchmark/splits: dev is for tuning, not for the ranking" in only_problem(target, bench)


def test_another_version_of_the_benchmark_is_refused(folder, benchmark):
    edit(folder, lambda document: document["benchmark"].update(fingerprint="0" * 64))
    assert "/benchmark/fingerprint: made for version" in only_problem(folder, benchmark)


UNSEEN = {
    "an escape": "\x1b[31m",
    "a NUL": "\x00",
    "a carriage return": "\r",
    "a C1 control": "\x9b",
    "a reordering mark": "\u202e",
    "an isolate": "\u2066",
    "a space without width": "\u200b",
    "a soft hyphen": "\xad",
    "a byte order mark": "\ufeff",
    "a joiner": "\U0001f469\u200d\U0001f52c",
    "a tag": "\U000e0041",
    "private use": "\ue000",
    "unassigned": "\u0378",
    "a line separator": "\u2028",
    "a blank pattern of Braille": "\u2800",
    "a Hangul filler": "\u3164",
    "a variation selector": "\U000e0101",
}


@pytest.mark.parametrize("text", UNSEEN.values(), ids=UNSEEN)
def test_unseen_characters_in_texts_are_refused(folder, benchmark, text):
    edit(folder, lambda document: document["method"].update(description=f"a{text}b"))
    assert "/method/description: holds the unseen character '\\" in only_problem(folder, benchmark)
    for value in (f"a{text}b", [1, "a", f"a{text}b"]):
        hidden = {"description": "a\n\tb", "hyperparameters": {"k": value}}
        edit(folder, lambda document, hidden=hidden: document["method"].update(hidden))
        found = only_problem(folder, benchmark)
        assert "/method/hyperparameters/k: holds the unseen character '\\" in found


@pytest.mark.parametrize("text", ["a\u200bb", "a\u3164b", "a\ue000b"])
def test_unseen_characters_in_names_are_refused(folder, benchmark, text):
    """Those that the schema lets pass: it knows no categories of characters."""
    edit(folder, lambda document: document["method"].update(version=text, display_name=text, licence=text))
    edit(folder, lambda document: document["submitters"][0].update(name=text, affiliation=text))
    edit(folder, lambda document: document["attributions"][0].update(concepts={text: 1.0}))
    pointers = ("method/display_name", "method/version", "method/licence", "submitters/0/name")
    pointers += ("submitters/0/affiliation", "attributions/0/concepts")
    problems = problems_of(folder, benchmark)
    assert len(problems) == len(pointers)
    for pointer, problem in zip(pointers, problems, strict=True):
        assert f"/{pointer}" in problem
        assert "the unseen character" in problem


@pytest.mark.parametrize(
    "title",
    [
        "M\u00e9dian 2 \u2764\ufe0f",
        "Vi\u1ec7t (unofficial)",
        "\u03b2-LRP",
        "\u6ce8\u610f\u529b",
        "Gro\u00df\u00a0X",
        "\u041c\u0435\u0442\u043e\u0434",
    ],
)
def test_what_can_be_seen_may_stand_in_a_title(folder, benchmark, title):
    edit(folder, lambda document: document["method"].update(display_name=title))
    assert problems_of(folder, benchmark, {"medfocus": "MedFocus"}) == []


@pytest.mark.parametrize("name", ["con", "lpt9"])
def test_a_folder_is_not_called_like_a_device_of_windows(folder, benchmark, name):
    moved = folder.rename(folder.with_name(name))
    edit(moved, lambda document: document["method"].update(name=name))
    assert f"Windows keeps the name {name} for a device" in only_problem(moved, benchmark)


def test_a_token_may_be_a_line_break_but_no_escape(folder, benchmark):
    def tokens(text):
        return lambda document: document["attributions"][0].update(tokens=[{"text": text, "score": 1.0}])

    for text in ("\n", "\r\n", "\u200b", "\ufffd", "\U0001f469\u200d\U0001f52c"):
        edit(folder, tokens(text))
        assert problems_of(folder, benchmark) == []
    for text in ("\x1b", "a\u202eb", "\x9b", "\u3164"):
        edit(folder, tokens(text))
        assert "a token holds the unseen character" in only_problem(folder, benchmark)


def test_a_folder_of_no_account_is_told_so_before_the_pull_request(folder, original):
    belongs_to(folder, None)
    status, _, errors = submit(folder, original)
    assert status == 2
    assert "/submitters: none names an account, so that nobody could change the folder later" in errors
    assert '"url": "https://github.com/YOU"' in errors


@pytest.mark.parametrize("name", ["run.py", "README.md", ".gitattributes", "maps.npz", "submission.json.bak"])
def test_files_that_are_no_part_of_a_submission_are_refused(folder, benchmark, name):
    (folder / name).write_text("x")
    assert "is not part of a submission" in only_problem(folder, benchmark)


def test_a_second_map_file_is_refused(folder, benchmark):
    shutil.copy(folder / "maps.safetensors", folder / "more.safetensors")
    assert "more.safetensors: not part of the submission" in only_problem(folder, benchmark)


def test_folders_and_special_files_are_refused(folder, benchmark):
    import os

    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    problems = problems_of(folder, benchmark)
    assert [problem.split(": ")[1][:21] for problem in problems] == ["is not a regular file"] * 2


@pytest.mark.parametrize("name", ["submission.json", "maps.safetensors"])
def test_a_link_is_refused_and_not_followed(folder, benchmark, tmp_path, name):
    moved = (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(moved)
    assert f"{name}: is a symbolic link" in only_problem(folder, benchmark)
    linked = tmp_path / "submissions" / "linked"
    linked.symlink_to(folder)
    assert "is a symbolic link; put the folder itself there" in only_problem(linked, benchmark)


def test_a_map_file_of_200_mb_is_refused_by_its_size_unopened(folder, benchmark):
    """A file that claims what it says it holds, and a sparse one: neither is opened."""
    path = folder / "maps.safetensors"
    path.write_bytes(safetensors({"a": {"dtype": "U8", "shape": [2**14, 2**14], "data_offsets": [0, 2**28]}}))
    with path.open("r+b") as file:
        file.truncate(200 * 10**6)
    with opened_files() as opened:
        problem = only_problem(folder, benchmark)
    assert f"is 200,000,000 bytes, at most {MAX_MAPS_BYTES:,} are taken" in problem
    assert str(path) not in opened
    with opened_files() as opened:
        path.open("rb").close()
    assert str(path) in opened, "an opened file is seen"


def test_a_header_that_claims_200_mb_is_refused_without_room_for_it(folder, benchmark):
    path = folder / "maps.safetensors"
    path.write_bytes(safetensors(b"{}", length=200 * 10**6))
    tracemalloc.start()
    assert "its header is longer than the file" in only_problem(folder, benchmark)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_a_large_document_is_refused_by_its_size(folder, benchmark):
    with (folder / "submission.json").open("r+b") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)
    assert "bytes, at most 16,777,216 are taken" in only_problem(folder, benchmark)


def test_a_folder_of_very_many_files_is_not_listed(folder, benchmark):
    for number in range(100):
        (folder / f"{number}.py").touch()
    assert "holds more than 20 files" in only_problem(folder, benchmark)


def test_all_problems_are_listed_at_once(folder, original):
    def spoil(document):
        document["method"] |= {"name": "x", "paper": "javascript:x", "description": "\x1b"}
        document["attributions"][0]["map"] = False

    edit(folder, spoil)
    status, shown, errors = submit(folder, original)
    assert (status, shown) == (2, "")
    *problems, count = errors.splitlines()
    assert len(problems) == 2  # the name and the description are looked at where the rest is typed
    assert count == f"medfocus-bench: {folder}: 2 problems"
    edit(folder, lambda document: document["method"].pop("paper"))
    assert len(submit(folder, original)[2].splitlines()) == 4


def test_a_sound_submission_is_shown_its_row(folder, original, tmp_path):
    summary = tmp_path / "summary.md"
    status, shown, errors = submit(folder, original, "--summary", summary)
    assert (status, errors) == (0, "")
    assert "The row of blurred, of 4 in the ranking" in shown
    assert "blurred" in shown
    text = summary.read_text()
    assert "blurred &#40;new&#41;" in text
    assert text.startswith("## blurred: sound")


def test_a_folder_elsewhere_is_told_where_it_belongs(original):
    status, _, errors = submit(original[0] / "new" / "blurred", original)
    assert status == 2
    assert "stands elsewhere; a pull request adds submissions/<name>" in errors


def test_the_first_row_of_all_needs_no_results(folder, benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, shown, error = run("submit", "submissions/blurred", "-b", benchmark.folder)
    assert status == 0
    assert "No results of others are here, so that the row stands alone; run this in a clone" in error
    assert "of 1 in the ranking" in shown
    assert "The results hold no null controls" in shown


def test_a_row_stands_where_its_score_says_and_moves_those_below(folder, benchmark, committed):
    result = score_result(folder, benchmark, verified=True)
    found = standing(result, committed)
    ranks = {row.result.name: row.rank for row in found.view.rows if not row.result.is_null}
    assert ranks == {"oracle": 1, "blurred": 1, "shifted": 3, "noisy": 3}
    assert list(ranks) == ["oracle", "blurred", "shifted", "noisy"]
    assert found.ranked == 4
    assert found.before is None
    assert [row.result.name for row in found.tied] == ["oracle"], "a blur costs next to nothing"
    assert found.unbeaten_nulls == ()
    moves = {move.name: (move.before, move.after) for move in found.moves}
    assert moves == {"shifted": (2, 3), "noisy": (2, 3)}


def test_what_replaces_a_row_is_held_against_it(original, benchmark, committed):
    old = original[0] / "repository" / "submissions" / "noisy"
    result = score_result(old, benchmark, verified=True)
    found = standing(result, committed)
    assert found.before is not None
    assert found.before.rank == found.row.rank
    assert found.moves == ()
    assert [row.result.name for row in found.tied if not row.result.is_null] == ["shifted"]
    assert any(": +0.000" in note for note in standing_tables(found)[0].notes)


def test_results_of_another_version_do_not_stand_beside_it(folder, benchmark, committed):
    result = score_result(folder, benchmark, verified=True)
    reference = result.report.benchmark.model_copy(update={"fingerprint": "0" * 64})
    report = result.report.model_copy(update={"benchmark": reference})
    assert standing(result.model_copy(update={"report": report}), committed).ranked == 1


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](https://example.org/x.png)",
    "https://example.org www.example.org a@example.org",
    "# heading | cell\n\n| a |",
    "`code` **bold** _it_ ~~no~~ $x$ :smile: <!-- --> &lt;b&gt; \\",
    "```\nfence",
    "- item",
    "1. item",
    "\x1b[31m \u202e \x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_in_the_summary_is_more_than_text(text):
    markdown = MarkdownIt("gfm-like", {"linkify": False, "html": True})
    for source in (neutral(text), refused_markdown([text]), render_markdown([], [text], escape=neutral)):
        html = markdown.render(source)
        tags = {part.split(">")[0].split()[0].strip("/") for part in html.split("<")[1:]}
        assert tags <= {"p", "ul", "li", "h2"}, html
        assert "http:" not in source
        assert "www." not in source
        assert all(c == "\n" or c.isprintable() for c in source)
    assert neutral("@octocat") == "&#64;&#8203;octocat"


def test_a_script_in_the_methods_name_is_text_in_the_summary(folder, original, tmp_path):
    edit(folder, lambda document: document["method"].update(display_name="<script>alert(1)</script> | @all"))
    summary = tmp_path / "summary.md"
    status, shown, _ = submit(folder, original, "--summary", summary)
    assert status == 0
    assert "script" in shown  # in a terminal it is text as it is
    html = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(summary.read_text())
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<table>") == summary.read_text().count("\n| ---")


def test_results_that_are_not_where_they_are_said_to_be_are_an_error(folder, benchmark, tmp_path):
    status, _, errors = run("submit", folder, "-b", benchmark.folder, "--results", tmp_path / "nowhere")
    assert status == 2
    assert "not a folder; give the one with the results" in errors
