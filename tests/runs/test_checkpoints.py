"""A checkpoint is identified by its content, wherever it lies."""

from __future__ import annotations

import shutil

import pytest

from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.runs import checkpoints
from medfocus_bench.runs.checkpoints import folder_identity


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], tmp_path / "elsewhere")


def test_every_shipped_lvlm_has_an_identity_of_its_own():
    assert len({folder_identity(key) for key in PHANTOM_LVLMS}) == len(PHANTOM_LVLMS)


def test_a_copy_is_the_same_checkpoint_whatever_lies_beside_it(copied):
    (copied / "README.md").write_text("notes")
    assert folder_identity(str(copied)) == folder_identity("phantom_qwen")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"]
)
def test_one_byte_of_any_file_makes_another_checkpoint(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[-1] ^= 1
    (copied / name).write_bytes(content)
    assert folder_identity(str(copied)) != folder_identity("phantom_qwen")


def test_of_a_large_file_the_ends_and_the_size_count(copied, monkeypatch):
    monkeypatch.setattr(checkpoints, "_WHOLE", 10_000)
    monkeypatch.setattr(checkpoints, "_BLOCK", 100)
    weights = copied / "model.safetensors"
    content = weights.read_bytes()
    found = [folder_identity(str(copied))]
    for changed in (b"\0" + content[1:], content[:-1] + b"\1\1", content[:-1] + bytes([content[-1] ^ 1])):
        weights.write_bytes(changed)
        found.append(folder_identity(str(copied)))
    assert len(set(found)) == 4


@pytest.mark.parametrize("source", ["qwen2_5_vl_3b", "Qwen/Qwen2.5-VL-3B-Instruct"])
def test_what_comes_from_the_hub_is_known_by_its_commit_once_it_is_loaded(source):
    assert folder_identity(source) is None
