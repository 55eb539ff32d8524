"""Files and folders are written atomically, and leave nothing beside them."""

from __future__ import annotations

import hashlib
import shutil
import stat
from pathlib import Path

import pytest

import medfocus_bench
from medfocus_bench.errors import InputError
from medfocus_bench.storage import (
    atomic_folder,
    check_fetched,
    file_sha256,
    replace_folder,
    write_atomic,
)

WEIGHTS = Path(medfocus_bench.__file__).parent / "phantom" / "weights" / "qwen-lesion"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folder(tmp_path):
    write_atomic(tmp_path / "a" / "b.txt", "Größe\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Größe\n".encode()
    write_atomic(tmp_path / "a" / "b.txt", b"\x00\r\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"\x00\r\n"
    assert names(tmp_path / "a") == ["b.txt"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_part(tmp_path):
    write_atomic(tmp_path / "b.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "b.txt", "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", "a folder is no file")
    assert (tmp_path / "b.txt").read_text() == "old"
    assert names(tmp_path) == ["b.txt", "folder"]


def test_a_written_file_can_be_read_by_whom_the_user_lets(tmp_path):
    """A temporary file's mode would lock a group out of a shared cache."""
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "plain").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_folder_takes_its_place_when_it_is_finished(tmp_path):
    out = tmp_path / "new" / "out"
    with atomic_folder(out) as work:
        (work / "one").write_text("1")
        assert not out.exists()
    with atomic_folder(out) as work:
        (work / "two").write_text("2")
        assert names(out) == ["one"]
    assert names(out) == ["two"]
    assert names(out.parent) == ["out"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o755


def test_a_folder_whose_making_fails_leaves_the_old_one_and_no_part(tmp_path):
    with atomic_folder(tmp_path / "out") as work:
        (work / "one").write_text("1")

    def stopped() -> None:
        with atomic_folder(tmp_path / "out") as work:
            (work / "two").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert names(tmp_path / "out") == ["one"]
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one").write_text("1")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "never made", tmp_path / "out")
    assert names(tmp_path / "out") == ["one"]
    assert names(tmp_path) == ["out"]


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_pointer_of_git_lfs_is_called_one_wherever_it_lies(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "large.bin").write_bytes(POINTER + b"x" * 2000)
    check_fetched(tmp_path)
    check_fetched(tmp_path / "none")
    pointer = tmp_path / "model.safetensors"
    pointer.write_bytes(POINTER)
    for place in (tmp_path, pointer):
        with pytest.raises(InputError, match=rf"^{pointer}: is still a pointer of Git LFS.*`git lfs pull`$"):
            check_fetched(place)


def test_a_parquet_file_that_git_lfs_did_not_fetch_is_named_so(tmp_path):
    from medfocus_bench.data.resolve import load_benchmark

    (tmp_path / "direct.parquet").write_bytes(POINTER)
    with pytest.raises(InputError, match=r"direct\.parquet: is still a pointer of Git LFS"):
        load_benchmark(tmp_path)


def test_a_pool_of_references_that_git_lfs_did_not_fetch_is_named_so(tmp_path):
    from medfocus_bench.medfocus.reference import ReferencePool

    (tmp_path / "pool.safetensors").write_bytes(POINTER)
    with pytest.raises(InputError, match=r"pool\.safetensors: is still a pointer of Git LFS"):
        ReferencePool.load(tmp_path / "pool.safetensors")


def test_weights_that_git_lfs_did_not_fetch_are_named_so(tmp_path):
    from medfocus_bench.lvlm.registry import load_lvlm

    shutil.copytree(WEIGHTS, tmp_path / "qwen")
    (tmp_path / "qwen" / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(InputError, match=r"model\.safetensors: is still a pointer of Git LFS"):
        load_lvlm(tmp_path / "qwen")
