"""One process at a time writes to a run."""

import os

import pytest

from medfocus_bench.errors import InputError
from medfocus_bench.lock import exclusive


def test_one_writer_at_a_time_has_a_file_or_a_folder_and_leaves_no_lock_behind(tmp_path):
    path = tmp_path / "out" / "tuned.json"
    holder = rf"tuned\.json: process {os.getpid()} on .*, since .*, writes to it; .* another --out"
    with exclusive(path), pytest.raises(InputError, match=holder), exclusive(path):
        pass
    with exclusive(path):
        path.with_name(".tuned.json.holder").write_text("[]")
        with pytest.raises(InputError, match=r"tuned\.json: another process writes to it"), exclusive(path):
            pass
    assert list(path.parent.iterdir()) == []
