"""Faults of places and arguments are reported before any work."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from medfocus_bench.cli.main import cli
from medfocus_bench.cli.options import DTYPES, Command, Group, Output, check_writable
from medfocus_bench.errors import InputError

from ..submission.documents import sound_document, write_folder
from .running import refused, run


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, (*path, name))
        else:
            found[(*path, name)] = command
    return found


OUTPUTS = [
    (words, param)
    for words, command in commands().items()
    for param in command.params
    if isinstance(param.type, Output)
]
"""Every place that a command writes to, with the words of the command."""

WRITES = ("out", "skips", "skips_file", "sheet", "losses_file", "summary", "runs", "work")
"""The names of such parameters."""


def typed(words: tuple[str, ...], param: click.Parameter, place: object) -> list[object]:
    """A command line with that place, and without what else the command asks for."""
    return [*words, *([param.opts[0]] if isinstance(param, click.Option) else []), place]


def test_every_command_checks_its_arguments():
    assert isinstance(cli, Group)
    for words, command in commands().items():
        assert isinstance(command, Command), words
        for param in command.params:
            if param.name in WRITES and (words, param.name) != (("pack",), "runs"):
                assert isinstance(param.type, Output), (words, param.name)
    assert len(OUTPUTS) >= 20


@pytest.mark.parametrize(("words", "param"), OUTPUTS, ids=lambda value: getattr(value, "name", None))
def test_a_place_that_cannot_be_written_comes_before_anything_else(words, param, tmp_path):
    """Even before what is missing on the command line."""
    (tmp_path / "file").write_text("as it was")
    error = refused(*typed(words, param, tmp_path / "file" / "below.json"))
    assert error.startswith(f"medfocus-bench: {tmp_path / 'file'}: is not a folder")
    assert isinstance(param.type, Output)
    other = tmp_path / "file" if param.type.is_folder else tmp_path
    error = refused(*typed(words, param, other))
    assert "is to be written; name a place that can be read and written" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_is_checked_without_leaving_anything_behind(tmp_path):
    assert check_writable(tmp_path / "a" / "b", folder=True) == tmp_path / "a" / "b"
    assert check_writable(tmp_path / "a" / "b.json") == tmp_path / "a" / "b.json"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a link to nothing"):
        check_writable(tmp_path / "link")


@pytest.mark.skipif(os.name != "posix" or not Path("/proc/self").is_dir(), reason="writes below /proc")
def test_a_folder_that_takes_no_files_is_found_out_by_trying():
    """Permissions alone do not tell: they let root do anything."""
    with pytest.raises(InputError, match="/proc: cannot be written to"):
        check_writable(Path("/proc/out.json"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("data", "export", ""), "an argument"),
        (("data", "doctor", "--root", ""), "--root"),
        (("data", "doctor", "--root="), "--root"),
        (("data", "doctor", "--root", "."), None),
        (("evaluate", "x", "-b", ""), "-b"),
        (("attribute", "--method", "occlusion", "--lvlm", " "), "--lvlm"),
        (("info", ""), "an argument"),
        (("leaderboard", "build", "--results", ""), "--results"),
    ],
)
def test_an_empty_argument_never_means_the_current_folder_or_all(words, what, tmp_path, monkeypatch):
    """It is what an unset variable leaves (trap 35)."""
    monkeypatch.chdir(tmp_path)
    status, _, error = run(*words)
    if what is None:
        assert status == 1
        return
    assert (status, error) == (2, f"medfocus-bench: {what}: is empty; give a value, or leave it out\n")
    assert list(tmp_path.iterdir()) == []


def test_an_input_is_not_written_over(bench, folder, tmp_path):
    write_folder(folder, sound_document(bench))
    before = (folder / "submission.json").read_bytes()
    for words, what in (
        (("evaluate", folder / "submission.json", "--out", folder / "submission.json"), "SUBMISSION reads"),
        (("evaluate", folder, "--out", folder / "submission.json"), "a file of the submission itself"),
        (("compare", folder, "null:whole-image", "--out", folder / "submission.json"), "submission itself"),
        (("null", "whole-image", "--out", bench.folder, "--overwrite"), "--benchmark reads"),
    ):
        assert what in refused(*words, "-b", bench.folder)
    attach = ("data", "attach", bench.folder, "--root", tmp_path, "--overwrite", "--out")
    assert "FOLDER reads" in refused(*attach, bench.folder)
    assert "FOLDER reads" in refused(*attach, bench.folder.parent)
    assert (folder / "submission.json").read_bytes() == before
    assert bench.folder.is_dir()


def test_two_files_are_not_written_to_one_place(tmp_path):
    same = tmp_path / "same"
    words = ("data", "doctor", "--root", tmp_path, "--skips", same, "--sheet", same)
    assert "is to be written by both --sheet and --skips" in refused(*words)


def test_a_name_is_no_place(tmp_path, monkeypatch):
    """`phantom` is a benchmark; a folder may be called so where none is yet."""
    monkeypatch.chdir(tmp_path)
    assert run("null", "whole-image", "-b", "phantom", "--split", "dev", "--out", "phantom")[0] == 0


def test_what_is_there_is_said_before_the_benchmark_is_read(tmp_path):
    (tmp_path / "old").mkdir()
    words = ("null", "whole-image", "-b", tmp_path / "nowhere", "--out", tmp_path / "old")
    assert "old: exists already" in refused(*words)


def test_the_types_of_weights_are_those_that_load():
    from medfocus_bench.lvlm import checkpoint

    assert tuple(checkpoint.DTYPES) == DTYPES
