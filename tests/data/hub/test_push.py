"""Sending to the Hub, with the real client against the look-alike."""

from __future__ import annotations

import os
import shutil

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from medfocus_bench.data.hub.publish import export, push
from medfocus_bench.data.hub.repository import DATASET
from medfocus_bench.errors import BenchmarkError, InputError

from .conftest import OTHER_TOKEN
from .rows import write_pointers, write_small
from .test_export import contents

pytestmark = [
    pytest.mark.usefixtures("hub", "owner"),
    # The client's own, where its HTTP library is newer than it.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

LARGE = "/large/"


@pytest.fixture(scope="module")
def small(tmp_path_factory, plain):
    """Version 1.0.0: few files, since each is asked about several times."""
    folder = tmp_path_factory.mktemp("push")
    pointers = write_pointers(folder / "pointers", ["imagenome", "vindr_cxr"], ["direct"])
    export(folder / "out", plain, [pointers])
    return folder / "out"


@pytest.fixture
def newer(tmp_path):
    """Version 1.1.0: two more phantom rows, without vindr_cxr."""
    pointers = write_pointers(tmp_path / "pointers", ["imagenome"], ["direct"])
    export(tmp_path / "newer", write_small(tmp_path / "source", "1.1.0", rows=8), [pointers])
    return tmp_path / "newer"


def remote(hub, revision="main"):
    files = dict(hub.repos[DATASET].at(revision).files)
    files.pop(".gitattributes")
    return files


def test_a_push_creates_commits_once_and_tags(hub, small):
    pushed = push(small, DATASET)
    repo = hub.repos[DATASET]
    assert remote(hub) == contents(small)
    assert [commit.message for commit in repo.commits] == ["initial commit", "Version 1.0.0"]
    assert repo.tags == {"v1.0.0": pushed.commit} == {"v1.0.0": repo.commits[-1].sha}
    assert (pushed.created, pushed.tagged, repo.private) == (True, True, False)
    assert sorted(pushed.changes.added) == sorted(contents(small))
    assert {ref.name for ref in HfApi().list_repo_refs(DATASET, repo_type="dataset").tags} == {"v1.0.0"}


def test_a_second_push_of_the_same_sends_nothing(hub, small):
    push(small, DATASET)
    before = len(hub.log)
    again = push(small, DATASET)
    assert (again.tagged, again.commit, bool(again.changes)) == (False, None, False)
    assert not [line for line in hub.log[before:] if line.startswith(("POST", "PUT"))]


def test_a_new_version_sends_what_changed_and_keeps_the_old_tag(hub, small, newer):
    push(small, DATASET)
    stored = len(hub.large)
    pushed = push(newer, DATASET, revision="v1.1.0", remove_configs=True)
    assert pushed.changes.removed == ("vindr_cxr/direct-00000-of-00001.parquet",)
    assert "imagenome/direct-00000-of-00001.parquet" in pushed.changes.unchanged
    assert "README.md" in pushed.changes.changed
    assert len(hub.large) == stored + 3  # the splits of phantom
    assert remote(hub, "v1.1.0") == remote(hub) == contents(newer)
    assert remote(hub, "v1.0.0") == contents(small)


def test_a_config_is_not_removed_unless_told(hub, small, newer):
    push(small, DATASET)
    with pytest.raises(InputError, match="holds vindr_cxr, which this folder lacks"):
        push(newer, DATASET)
    assert remote(hub) == contents(small)


def test_a_version_that_is_published_never_changes(hub, small, tmp_path):
    push(small, DATASET)
    export(tmp_path / "other", write_small(tmp_path / "source", rows=7))
    with pytest.raises(InputError, match=r"v1\.0\.0 is published with other content"):
        push(tmp_path / "other", DATASET)
    assert remote(hub) == contents(small)


def test_a_tag_that_is_not_the_version_is_refused(hub, small):
    with pytest.raises(InputError, match=r"holds version 1\.0\.0, whose tag is v1\.0\.0, not v2\.0\.0"):
        push(small, DATASET, revision="v2.0.0")
    assert not hub.repos


def test_a_dry_run_shows_the_changes_and_sends_nothing(hub, small, newer):
    planned = push(small, DATASET, dry_run=True)
    assert planned.created
    assert sorted(planned.changes.added) == sorted(contents(small))
    assert not hub.repos
    push(small, DATASET)
    before = len(hub.log)
    planned = push(newer, DATASET, dry_run=True, remove_configs=True)
    assert planned.changes.removed
    assert not [line for line in hub.log[before:] if line.startswith(("POST", "PUT"))]


def test_a_private_repository_is_made_and_a_public_one_not_taken_for_it(hub, small):
    push(small, DATASET, private=True)
    assert hub.repos[DATASET].private
    hub.reset()
    push(small, DATASET)
    with pytest.raises(InputError, match="exists and is public"):
        push(small, DATASET, private=True)


def test_a_connection_that_breaks_once_is_taken_up_by_the_client(hub, small, no_waits):
    fault = hub.fault("PUT", LARGE, "break", times=1)
    push(small, DATASET)
    assert fault.hits == 1
    assert remote(hub) == contents(small)


@pytest.mark.parametrize("broken", [("PUT", LARGE), ("POST", "/commit/"), ("POST", "/preupload/")])
def test_a_push_that_breaks_off_publishes_nothing_and_the_next_one_finishes(hub, small, no_waits, broken):
    fault = hub.fault(*broken, "break")
    with pytest.raises(BenchmarkError, match=r"broke off .*run it again"):
        push(small, DATASET)
    assert fault.hits
    assert remote(hub) == {}
    assert not hub.repos[DATASET].tags
    hub.faults.clear()
    push(small, DATASET)
    assert remote(hub, "v1.0.0") == contents(small)


def test_what_was_sent_before_the_break_is_not_sent_again(hub, small, no_waits):
    hub.fault("POST", "/commit/", "break")
    with pytest.raises(BenchmarkError):
        push(small, DATASET)
    hub.faults.clear()
    before = len(hub.log)
    push(small, DATASET)
    assert not [line for line in hub.log[before:] if line.startswith("PUT")]


def test_a_commit_that_lacks_its_tag_gets_it_next_time(hub, small):
    hub.fault("POST", "/tag/", "500", times=1)
    with pytest.raises(BenchmarkError, match="the Hub says 500"):
        push(small, DATASET)
    assert remote(hub) == contents(small)
    pushed = push(small, DATASET)
    assert pushed.tagged
    assert len(hub.repos[DATASET].commits) == 2


def test_a_content_that_changes_on_the_way_is_refused_by_its_checksum(hub, small):
    hub.fault("PUT", LARGE, "flip")
    with pytest.raises(BenchmarkError, match="the Hub says 400"):
        push(small, DATASET)
    assert remote(hub) == {}


def test_a_commit_of_somebody_else_in_between_is_not_overwritten(hub, small, newer, monkeypatch):
    push(small, DATASET)
    repo = hub.repos[DATASET]
    create = HfApi.create_commit

    def race(*arguments, **named):
        HfApi.create_commit = create
        api = HfApi()
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=DATASET, repo_type="dataset")
        return create(*arguments, **named)

    monkeypatch.setattr(HfApi, "create_commit", race)
    with pytest.raises(BenchmarkError, match="the Hub says 412"):
        push(newer, DATASET, remove_configs=True)
    assert "x.txt" in repo.commits[-1].files
    assert list(repo.tags) == ["v1.0.0"]


def test_without_a_token_or_with_that_of_somebody_else_nothing_is_sent(hub, small, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="needs a token; log in with `hf auth login`"):
        push(small, DATASET)
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    with pytest.raises(InputError, match=r"the Hub refuses \(403\)"):
        push(small, DATASET)
    assert not hub.repos


def test_a_hub_out_of_reach_is_said_at_once(small, no_hub):
    with pytest.raises(InputError, match="the Hub is out of reach; nothing was sent"):
        push(small, DATASET)


@pytest.mark.parametrize("repo", ["cxr-causal", "a/b/c", "a b/c", "../x", "-a/b", ""])
def test_a_repository_needs_an_owner_and_a_plain_name(small, repo):
    with pytest.raises(InputError, match="is not the name of a repository"):
        push(small, repo)


@pytest.fixture
def tampered(small, tmp_path):
    shutil.copytree(small, tmp_path / "tampered")
    return tmp_path / "tampered"


def test_a_file_too_many_a_missing_one_and_a_word_that_export_would_not_write_are_refused(hub, tampered):
    (tampered / "phantom" / "scan.dcm").write_bytes(b"DICM")
    with pytest.raises(InputError, match=r"scan\.dcm: does not belong to a dataset repository"):
        push(tampered, DATASET)
    (tampered / "phantom" / "scan.dcm").unlink()
    card = (tampered / "README.md").read_text()
    (tampered / "README.md").write_text(card + "One of the patients was called ...")
    with pytest.raises(InputError, match="is not what `data export` writes of these rows"):
        push(tampered, DATASET)
    (tampered / "README.md").unlink()
    with pytest.raises(InputError, match=r"README\.md: is missing"):
        push(tampered, DATASET)
    assert not hub.repos


def test_more_than_the_rows_in_a_parquet_file_is_refused(tampered):
    path = tampered / "imagenome" / "direct-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, "pixels": "00ff"}), path)
    with pytest.raises(InputError, match="is not what `data export` writes of these rows"):
        push(tampered, DATASET)


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "pipe"])
def test_links_and_special_files_are_refused(tampered, tmp_path, kind):
    elsewhere = tmp_path / "elsewhere"
    if kind == "pipe":
        os.mkfifo(tampered / "phantom" / "pipe")
    elif kind == "link to a folder":
        elsewhere.mkdir()
        (tampered / "more").symlink_to(elsewhere)
    else:
        path = tampered / "phantom" / "dev-00000-of-00001.parquet"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link or a special file"):
        push(tampered, DATASET)


def test_a_folder_that_is_no_export_is_refused(tmp_path, plain):
    with pytest.raises(InputError, match="is not a folder"):
        push(tmp_path / "none", DATASET)
    with pytest.raises(InputError, match="is not an exported repository"):
        push(tmp_path, DATASET)
    with pytest.raises(InputError, match=r"is missing|does not belong to"):
        push(plain, DATASET)
