"""Journals: lines that a long run appends, and what a stopped one leaves."""

from __future__ import annotations

import pytest

from medfocus_bench.errors import InputError
from medfocus_bench.journal import Journal, read_journal

HEAD = {"format": "a test", "benchmark": "abc", "seed": 0}


def record(name, value=1.0):
    return {"sample_id": name, "value": value}


def test_records_are_read_back_and_added_to(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    journal = Journal(path, HEAD)
    assert journal.records == {}
    assert not path.exists()
    journal.add([record("a"), record("b")])
    journal.add([record("c")])
    again = Journal(path, HEAD)
    assert list(again.records) == ["a", "b", "c"]
    again.add([record("d", 0.1)])
    assert read_journal(path, HEAD) == {n: record(n, 0.1 if n == "d" else 1.0) for n in "abcd"}
    assert len(path.read_text().splitlines()) == 5


def test_a_half_written_last_line_is_cut_off_wherever_it_broke(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, HEAD).add([record("a"), record("b")])
    whole = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        left = sum(end <= size for end in ends[1:])
        assert len(read_journal(path, HEAD)) == left
        journal = Journal(path, HEAD)
        assert list(journal.records) == ["a", "b"][:left]
        journal.add([record(name) for name in ("a", "b")[left:]])
        assert path.read_bytes() == whole


def test_a_journal_of_something_else_is_refused_with_the_difference(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, HEAD).add([record("a")])
    with pytest.raises(InputError, match=r"another seed \(0, not 3\); name another place, or delete"):
        Journal(path, HEAD | {"seed": 3})
    with pytest.raises(InputError, match="made by another version"):
        Journal(path, {"format": "a test"})
    path.write_text("[1]\n")
    with pytest.raises(InputError, match="does not say what it was measured of"):
        Journal(path, HEAD)


@pytest.mark.parametrize("line", ["{}", "[]", "nonsense", "3"])
def test_damage_in_the_middle_names_the_line(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    Journal(path, HEAD).add([record("a")])
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(InputError, match="line 3 cannot be read; delete the file to begin anew"):
        Journal(path, HEAD)
