"""A stranger's pull request, played through with git: what it changes, whose it is, and what it gets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medfocus_bench.errors import InputError
from medfocus_bench.leaderboard.review.pull_request import Change, compared_trees, read_changes
from medfocus_bench.storage import file_sha256

from ..cli.running import run
from .flow import OWNER, STRANGER, belongs_to, edit, git


class PullRequest:
    """A clone on a branch of its own. `check` commits what was changed in it and runs the guard."""

    def __init__(self, original, folder: Path) -> None:
        self.new, self.benchmark = original[0] / "new" / "blurred", original[1]
        self.base, self.head = original[0] / "repository", folder / "head"
        self.summary = folder / "summary.md"
        git(folder, "clone", "--quiet", str(self.base), "head")
        git(self.head, "switch", "--quiet", "-c", "theirs")

    @property
    def folder(self) -> Path:
        return self.head / "submissions" / "blurred"

    def add(self, name: str = "blurred") -> Path:
        shutil.copytree(self.new, self.head / "submissions" / name)
        return self.head / "submissions" / name

    def check(self, author: str = STRANGER):
        self.summary.unlink(missing_ok=True)
        git(self.head, "add", "--all", "--force")
        git(self.head, "commit", "--quiet", "--allow-empty", "-m", "theirs")
        changes = self.head.parent / "changes"
        changes.write_text(git(self.head, "diff", "--name-status", "--no-renames", "-z", "main", "theirs"))
        words = ("--base", self.base, "--head", self.head, "--changes", changes, "--author", author)
        more = ("-b", self.benchmark.folder, "--summary", self.summary)
        status, shown, errors = run("leaderboard", "guard", *words, *more)
        assert "Traceback" not in errors
        assert all(line.isprintable() for line in errors.splitlines())
        return status, shown, errors

    def refused(self, author: str = STRANGER) -> list[str]:
        """The problems; the last line of the output counts them, and the summary lists them too."""
        status, shown, errors = self.check(author)
        assert (status, shown) == (2, "")
        *problems, count = errors.splitlines()
        assert count.startswith(f"medfocus-bench: the pull request: {len(problems)} problem")
        assert self.summary.read_text().startswith(f"## Refused: {len(problems)} problem")
        return problems


@pytest.fixture
def pull_request(original, tmp_path):
    return PullRequest(original, tmp_path)


@pytest.fixture
def of_its_own(original, tmp_path):
    """A pull request to a repository that a test may change."""
    shutil.copytree(original[0], tmp_path / "original")
    return PullRequest((tmp_path / "original", original[1]), tmp_path)


def test_a_good_one_gets_its_row(pull_request):
    pull_request.add()
    status, shown, errors = pull_request.check()
    assert (status, errors) == (0, "")
    assert "The row of blurred, of 4 in the ranking" in shown
    text = pull_request.summary.read_text()
    assert "| 1 | blurred &#40;new&#41; |" in text
    assert "### Ranks that change" in text
    assert "| shifted | 2 | 3 |" in text
    assert not (pull_request.base / "leaderboard" / "results" / "blurred.json").exists()


def test_tampered_scores_are_refused(pull_request):
    """Results are not data of a pull request, whichever row they are of."""
    pull_request.add()
    results = pull_request.head / "leaderboard" / "results"
    path = results / "noisy.json"
    path.write_text(path.read_text().replace('"mean":', '"mean": 1'))
    shutil.copy(results / "oracle.json", results / "blurred.json")
    problems = pull_request.refused()
    assert [problem.split(":")[0] for problem in problems] == [
        "leaderboard/results/blurred.json",
        "leaderboard/results/noisy.json",
    ]
    assert all("never taken from a pull request" in problem for problem in problems)


def test_results_of_the_pull_request_are_never_read(pull_request):
    """Even where the list of changes does not name them."""
    pull_request.add()
    shutil.rmtree(pull_request.head / "leaderboard")
    (pull_request.head / "leaderboard").symlink_to("/nowhere")
    changes = pull_request.head.parent / "changes"
    changes.write_text("A\0submissions/blurred/submission.json\0")
    words = ("--base", pull_request.base, "--head", pull_request.head, "--changes", changes)
    more = ("--author", "stranger", "-b", pull_request.benchmark.folder)
    status, shown, _ = run("leaderboard", "guard", *words, *more)
    assert status == 0
    assert "of 4 in the ranking" in shown


def test_a_swapped_map_file_is_refused(pull_request):
    folder = pull_request.add()
    shutil.copy(pull_request.base / "submissions" / "oracle" / "maps.safetensors", folder)
    (problem,) = pull_request.refused()
    assert f"{folder / 'submission.json'}: /maps/sha256: is not that of" in problem


def test_a_changed_neighbours_folder_is_refused(pull_request):
    pull_request.add()
    edit(pull_request.head / "submissions" / "noisy", lambda document: document["attributions"].pop())
    (problem,) = pull_request.refused()
    assert "changes 2 folders (blurred, noisy); change one, your own" in problem


def test_only_its_owner_changes_a_submission(pull_request):
    noisy = pull_request.head / "submissions" / "noisy"
    edit(noisy, lambda document: document["method"].update(version="2"))
    (problem,) = pull_request.refused()
    assert f"submissions/noisy: exists already and belongs to {OWNER}, not to stranger" in problem
    status, shown, _ = pull_request.check(author=OWNER.upper())
    assert status == 0
    assert "It replaces a row of evidence AP" in shown


@pytest.mark.parametrize("account", [None, "grace"])
def test_a_new_folder_belongs_to_the_one_who_adds_it(pull_request, account):
    """Else nobody, or somebody who knows nothing of it, could change it later."""
    folder = pull_request.add()
    belongs_to(folder, account)
    (problem,) = pull_request.refused()
    assert f"{folder / 'submission.json'}: /submitters: none names the account {STRANGER}" in problem
    assert f'"url": "https://github.com/{STRANGER}"' in problem
    belongs_to(folder, STRANGER.upper())
    assert pull_request.check()[0] == 0


def test_another_ones_attributions_are_refused(pull_request):
    """In a folder, under a name and of a version of their own."""
    folder = pull_request.add()
    shutil.copy(pull_request.base / "submissions" / "shifted" / "maps.safetensors", folder)
    digest = file_sha256(folder / "maps.safetensors")
    edit(folder, lambda document: document["maps"].update(sha256=digest))
    (problem,) = pull_request.refused()
    assert problem.startswith(f"{folder}: holds the same attributions as submissions/shifted")


def test_a_submission_does_not_change_hands(pull_request):
    """Neither by naming oneself in the file that says who the owner is."""
    noisy = pull_request.head / "submissions" / "noisy"
    mine = {"name": "S", "url": "https://github.com/stranger"}
    edit(noisy, lambda document: document.update(submitters=[mine]))
    first, second = pull_request.refused()
    assert "belongs to ada-l, not to stranger" in first
    assert "/submitters: were changed" in second
    (problem,) = pull_request.refused(author=OWNER)
    assert "/submitters: were changed" in problem


@pytest.mark.parametrize("url", [None, "https://github.com.evil.org/ada-l"])
def test_a_submission_of_no_known_account_is_changed_by_nobody(of_its_own, url):
    for tree in (of_its_own.base, of_its_own.head):
        edit(tree / "submissions" / "noisy", lambda document: document["submitters"][0].update(url=url))
    (problem,) = of_its_own.refused(author=OWNER)
    assert "so that its owner is unknown" in problem


def test_where_the_results_do_not_go_together_the_summary_says_so_too(of_its_own):
    path = of_its_own.base / "leaderboard" / "results" / "noisy.json"
    value = json.loads(path.read_text())
    value["views"][0]["samples"] += 1
    path.write_text(json.dumps(value))
    of_its_own.add()
    (problem,) = of_its_own.refused()
    assert "rebuild both on one benchmark" in problem


def test_a_removed_submission_is_refused(pull_request):
    shutil.rmtree(pull_request.head / "submissions" / "noisy")
    (problem,) = pull_request.refused(author=OWNER)
    assert problem.startswith("submissions/noisy/submission.json: is removed; ask for that in an issue")


def test_a_renamed_submission_is_a_removal(pull_request):
    git(pull_request.head, "mv", "submissions/noisy", "submissions/mine")
    problems = pull_request.refused()
    assert any("submissions/noisy/submission.json: is removed" in problem for problem in problems)


def test_nothing_else_is_changed(pull_request):
    pull_request.add()
    paths = [
        ".github/workflows/submission.yml",
        "README.md",
        "leaderboard/log.jsonl",
        "medfocus_bench/__init__.py",
        "submissions/README.md",
        "submissions/\x1b[31m/a\n/b",
        "submissions/blurred/sub/file.json",
        "submissions/stray.json",
    ]
    for path in paths:
        (pull_request.head / path).parent.mkdir(parents=True, exist_ok=True)
        (pull_request.head / path).write_text("x\n")
    problems = pull_request.refused()
    assert len(problems) == len(paths)
    for path in paths:
        said = f"{ascii(path)[1:-1]}: lies outside submissions/<name>/"
        assert any(problem.startswith(said) for problem in problems), path


def test_code_in_the_folder_is_refused_and_never_run(pull_request, monkeypatch):
    """Where the guard would import from the pull request, these would tell."""
    folder = pull_request.add()
    ran = pull_request.head.parent / "ran"
    for name in ("conftest.py", "medfocus_bench.py", "sitecustomize.py"):
        (folder / name).write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.chdir(folder)
    problems = pull_request.refused()
    assert [problem.split(": ")[1] for problem in problems] == [
        "is not part of a submission, which is submission.json and one .safetensors file"
    ] * 3
    assert not ran.exists()


def test_a_link_out_of_the_folder_is_refused(pull_request):
    folder = pull_request.add()
    (folder / "maps.safetensors").unlink()
    (folder / "maps.safetensors").symlink_to("../oracle/maps.safetensors")
    (problem,) = pull_request.refused()
    assert problem == f"{folder / 'maps.safetensors'}: is a symbolic link; put the file itself there"


def test_the_folder_of_all_submissions_is_not_a_link(pull_request):
    shutil.move(pull_request.head / "submissions", pull_request.head.parent / "away")
    (pull_request.head / "submissions").symlink_to(pull_request.head.parent / "away")
    problems = pull_request.refused()
    assert "submissions: lies outside submissions/<name>/" in problems[0]


def test_a_folder_that_is_a_link_is_refused(pull_request):
    (pull_request.head / "submissions" / "mine").symlink_to("oracle")
    (problem,) = pull_request.refused()
    assert problem.startswith("submissions/mine: lies outside submissions/<name>/")


def test_a_script_in_the_name_of_the_method_is_refused_or_text(pull_request):
    script = "<script>alert(1)</script>"
    folder = pull_request.add()
    edit(folder, lambda document: document["method"].update(name=script))
    (problem,) = pull_request.refused()
    assert "/method/name: " in problem
    edit(folder, lambda document: document["method"].update(name="blurred", display_name=script))
    status, _, _ = pull_request.check()
    assert status == 0
    assert "<" not in pull_request.summary.read_text()


def test_an_empty_pull_request_is_refused(pull_request):
    assert pull_request.refused() == ["the pull request changes nothing; add submissions/<name>"]


def test_an_author_is_the_name_of_an_account(pull_request):
    pull_request.add()
    for author in ("a b", "$(id)", "-x", "a" * 40, "<script>"):
        (problem,) = pull_request.refused(author=author)
        assert "is not the name of an account" in problem
    said = "medfocus-bench: --author: is empty; give a value, or leave it out\n"
    assert pull_request.check("") == (2, "", said)


def test_very_many_changes_are_counted(pull_request):
    for number in range(60):
        (pull_request.head / f"{number}.txt").touch()
    problems = pull_request.refused()
    assert problems[-1] == "the pull request changes 60 files; a submission is two"
    assert len(problems) == 51
    assert "and 1 more" in pull_request.summary.read_text()


@pytest.mark.parametrize("option", ["--base", "--head"])
def test_a_tree_that_is_not_there_is_named(pull_request, option):
    trees = {"--base": pull_request.base, "--head": pull_request.head} | {option: "nowhere"}
    words = [word for pair in trees.items() for word in pair]
    more = ("--author", "stranger", "-b", pull_request.benchmark.folder)
    status, _, errors = run("leaderboard", "guard", *words, *more)
    assert (status, errors.splitlines()) == (
        2,
        [f"medfocus-bench: {option} nowhere: not a folder; give that of a checkout"],
    )


def test_without_git_the_trees_say_what_changed(pull_request):
    pull_request.add()
    head = pull_request.head
    edit(head / "submissions" / "noisy", lambda document: document["method"].update(version="2"))
    (head / "submissions" / "oracle" / "maps.safetensors").unlink()
    (head / "submissions" / "shifted" / "maps.safetensors").unlink()
    (head / "submissions" / "shifted" / "maps.safetensors").symlink_to("x")
    (head / "submissions" / "linked").symlink_to("oracle")
    assert compared_trees(pull_request.base, head) == [
        Change("A", "submissions/blurred/maps.safetensors"),
        Change("A", "submissions/blurred/submission.json"),
        Change("A", "submissions/linked"),
        Change("M", "submissions/noisy/submission.json"),
        Change("D", "submissions/oracle/maps.safetensors"),
        Change("T", "submissions/shifted/maps.safetensors"),
    ]


def test_a_list_of_changes_is_read_strictly(tmp_path):
    path = tmp_path / "changes"
    path.write_bytes(b"R100\0a\0b\0C75\0c\0d\0M\0e\xff\0")
    assert read_changes(path) == [
        Change("D", "a"),
        Change("A", "b"),
        Change("A", "d"),
        Change("M", "e\udcff"),
    ]
    path.write_bytes(b"")
    assert read_changes(path) == []
    for wrong in (b"A\tname\n", b"A\0", b"Z\0name\0", b"A\0\0", b"R100\0a\0", b"A\0" + b"x" * 2**22 + b"\0"):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"^.*changes: (not a list|is larger than)"):
            read_changes(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_changes(tmp_path / "none")
