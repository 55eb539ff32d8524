"""`load_samples` and `-b medfocus/cxr-causal`: the Hub, a folder, the embedded track through one door."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
import threading
import warnings

import datasets
import huggingface_hub
import numpy as np
import pytest

import medfocus_bench
from medfocus_bench import load_samples
from medfocus_bench.data.hub.client import ANSWER_SECONDS, hub_answers
from medfocus_bench.data.hub.publish import export
from medfocus_bench.data.hub.repository import DATASET, HubName, hub_name
from medfocus_bench.data.hub.samples import fingerprint
from medfocus_bench.data.resolve import installed_benchmarks, load_benchmark
from medfocus_bench.errors import BenchmarkError, InputError, OfflineWarning

from .conftest import OTHER_TOKEN, TOKEN, point_clients_to, publish
from .embedded import VERSION
from .rows import write_pointers, write_rows, write_small

PRIVATE = "medfocus/private"


@pytest.fixture
def published(hub, small):
    publish(hub, small)
    return hub


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newer")
    source = write_small(folder / "source", "1.1.0", rows=8)
    export(folder / "out", source, [write_pointers(folder / "pointers", ["imagenome"])])
    return folder / "out"


def test_the_hub_a_folder_and_a_plain_benchmark_give_the_same_rows(published, small, plain):
    loaded = [
        load_samples(DATASET, split="dev"),
        load_samples(f"hf://{DATASET}", split="dev"),
        load_samples(small, split="dev"),
        load_samples(plain, split="dev"),
    ]
    for rows in loaded:
        assert rows.features == loaded[0].features
        assert [row["sample_id"] for row in rows] == [f"phantom-0000{n}-phantom_qwen-direct" for n in (6, 7)]
        assert np.array_equal(np.asarray(rows[0]["image"]), np.asarray(loaded[0][0]["image"]))
        assert rows[1]["boxes"] == [[4.0, 5.0, 20.0, 21.5]]
        assert rows.split == "dev"


def test_the_embedded_track_needs_no_network(no_hub):
    rows = load_samples("phantom", split="dev")
    assert len(rows) == 528
    assert rows[0]["image"].size == (224, 224)
    assert rows.features["group"].names == ["incorrect", "ungrounded", "grounded"]


def test_a_named_config_and_a_split(published):
    rows = load_samples(DATASET, config="imagenome", split="reasoning")
    assert len(rows) == 5
    assert rows[0]["image"] is None
    assert rows[0]["boxes"] is None
    assert rows.features["boxes"] == datasets.List(datasets.List(datasets.Value("float64")))


def test_a_revision_is_pinned(published, newer):
    publish(published, newer)
    assert len(load_samples(DATASET)) == 8
    assert len(load_samples(DATASET, revision="v1.0.0")) == 6
    assert len(load_samples(f"{DATASET}@v1.0.0")) == 6
    commit = published.repos[DATASET].tags["v1.0.0"]
    assert len(load_samples(DATASET, revision=commit)) == 6
    assert load_benchmark(f"{DATASET}@v1.0.0").version == "1.0.0"
    assert load_benchmark(DATASET).version == "1.1.0"


@pytest.mark.parametrize("source", ["hub", "folder", "plain"])
def test_streaming_reads_the_same_rows(published, small, plain, source):
    name = {"hub": DATASET, "folder": small, "plain": plain}[source]
    streamed = load_samples(name, split="direct", streaming=True)
    assert isinstance(streamed, datasets.IterableDataset)
    rows = list(streamed)
    assert [row["index"] for row in rows] == list(range(6))
    assert rows[0]["image"].size == (32, 32)


def test_streaming_fetches_no_file_of_another_split(published):
    next(iter(load_samples(DATASET, split="dev", streaming=True)))
    fetched = [line for line in published.log if line.startswith("GET") and "/resolve/" in line]
    assert not [line for line in fetched if "direct-" in line or "reasoning-" in line]


@pytest.mark.parametrize("streaming", [False, True])
def test_nothing_of_a_repository_is_run_and_no_card_leads_elsewhere(hub, small, streaming):
    """Trap 32: neither a loading script nor the header of the card decides what is read."""
    publish(hub, small)
    files = dict(hub.repos[DATASET].commits[-1].files)
    files["cxr-causal.py"] = b"raise SystemExit('was run')"
    files["README.md"] = b"---\nconfigs:\n- config_name: phantom\n  data_files: /etc/passwd\n---\n"
    hub.put(DATASET, files, tag="v1.0.1")
    assert next(iter(load_samples(DATASET, split="dev", streaming=streaming)))["index"] == 6
    assert not [line for line in hub.log if ".py" in line]


@pytest.mark.parametrize(
    "change",
    [{"configs": 7}, {"configs": {"phantom": []}}, {"configs": {"phantom": {"splits": 3}}}],
)
def test_a_manifest_that_describes_nothing_is_refused(small, tmp_path, hf_home, change):
    shutil.copytree(small, tmp_path / "copy")
    manifest = json.loads((small / "benchmark.json").read_text()) | change
    (tmp_path / "copy" / "benchmark.json").write_text(json.dumps(manifest))
    with pytest.raises(BenchmarkError, match=r"benchmark\.json: .*(not an object|described without)"):
        load_samples(tmp_path / "copy", split="dev")
    with pytest.raises(BenchmarkError):
        export(tmp_path / "again", tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (None, {"split": "test"}, "has no split 'test', only direct, reasoning, dev"),
        (None, {"config": "chexpert"}, "holds no config chexpert"),
        (None, {"revision": "v1.0.0"}, "a revision is of a repository on the Hub"),
        (DATASET, {"config": "chexpert"}, "holds no config chexpert"),
        (DATASET, {"config": "chexpert", "streaming": True}, "direct cannot be loaded"),
        (DATASET, {"revision": "v9.0.0"}, "has no such revision"),
        ("medfocus/cxr-casual", {}, "is neither a folder nor a benchmark"),
        ("hf://medfocus/cxr-casual", {}, "is not on the Hub, or is private"),
    ],
)
def test_a_config_split_or_name_that_is_none_is_said(published, small, name, settings, said):
    with pytest.raises(BenchmarkError, match=said):
        load_samples(name or small, **settings)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_private_repository_needs_the_token_of_its_owner(hub, small, monkeypatch, streaming):
    publish(hub, small, PRIVATE, private=True)
    for token in (None, OTHER_TOKEN):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(BenchmarkError, match="is private; if it is, log in with `hf auth login`"):
            load_samples(f"hf://{PRIVATE}", streaming=streaming)
        with pytest.raises(BenchmarkError, match="is private"):
            load_benchmark(f"hf://{PRIVATE}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert next(iter(load_samples(f"hf://{PRIVATE}", streaming=streaming)))["index"] == 0


def test_a_download_that_breaks_off_is_resumed_where_it_stopped(published, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 512)
    fault = published.fault("GET", r"/resolve/.*/phantom/dev-", "break", times=1)
    assert len(load_samples(DATASET, split="dev")) == 2
    assert fault.hits == 1
    assert [line for line in published.log if "dev-" in line and line.endswith("206")]


def test_a_download_that_stays_broken_is_said_and_the_next_one_finishes(published, no_waits, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    published.fault("GET", r"/resolve/.*/phantom/dev-", "503")
    with pytest.raises(BenchmarkError, match=r"the Hub says 503.*; run it again: what was fetched is kept"):
        load_samples(DATASET, split="dev")
    published.faults.clear()
    before = len(published.log)
    assert len(load_samples(DATASET, split="dev")) == 2
    again = [line for line in published.log[before:] if line.startswith("GET") and "parquet" in line]
    assert len(again) == 1


@pytest.mark.parametrize("load", [load_samples, load_benchmark])
def test_a_download_with_a_wrong_checksum_is_refused_and_not_kept(published, load):
    """The client looks at sizes only: a byte that flipped would stay in its cache for good."""
    published.fault("GET", r"/resolve/.*/phantom/direct-", "flip", times=1)
    with pytest.raises(BenchmarkError, match=r"direct-00000.*is not the published file \(its sha256"):
        load(DATASET)
    load(DATASET)


def test_a_folder_whose_rows_are_not_those_of_its_manifest_is_refused(small, tmp_path, hf_home):
    shutil.copytree(small, tmp_path / "copy")
    path = tmp_path / "copy" / "phantom" / "dev-00000-of-00001.parquet"
    shutil.copy(tmp_path / "copy" / "phantom" / "direct-00000-of-00001.parquet", path)
    with pytest.raises(BenchmarkError, match="is not the published file"):
        load_samples(tmp_path / "copy", split="dev")
    assert path.exists()  # a user's own file is not removed
    manifest = json.loads((tmp_path / "copy" / "benchmark.json").read_text())
    same = manifest["files"]["phantom/direct-00000-of-00001.parquet"]
    manifest["files"]["phantom/dev-00000-of-00001.parquet"] = same
    (tmp_path / "copy" / "benchmark.json").write_text(json.dumps(manifest))
    with pytest.raises(BenchmarkError, match="is not what its manifest says"):
        load_samples(tmp_path / "copy", split="dev")


def test_a_fingerprint_of_loaded_rows_is_that_of_the_manifest(small, hf_home):
    splits = json.loads((small / "benchmark.json").read_text())["configs"]["phantom"]["splits"]
    for split, entry in splits.items():
        rows = load_samples(small, split=split)
        assert fingerprint(rows, split) == entry["fingerprint"]
        changed = rows.map(lambda row: {"response": "Perhaps."}, load_from_cache_file=False)
        assert fingerprint(changed, split) != entry["fingerprint"]


def test_a_plain_benchmark_that_was_changed_is_refused(tmp_path, hf_home):
    folder = write_small(tmp_path / "plain")
    write_rows(folder / "dev.parquet", [])
    with pytest.raises(BenchmarkError, match="is not that of its manifest"):
        load_samples(folder)


def test_a_folder_of_pointers_and_one_of_a_source_of_ones_own_load(tmp_path, hf_home):
    from ...conftest import make_row

    assert len(load_samples(write_pointers(tmp_path / "pointers"), config="vindr_cxr")) == 5
    medfocus_bench.write_benchmark(
        tmp_path / "mine", {"dev": [make_row(source="mine")]}, name="m", version="1"
    )
    assert load_samples(tmp_path / "mine", split="dev")[0]["source"] == "mine"


def test_offline_the_embedded_track_stands_in_and_says_so_once(no_hub, monkeypatch):
    """Without the client's retries, which wait half a minute."""
    waited = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited.append)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for _ in range(2):
            rows = load_samples(DATASET, split="dev")
    (warning,) = [entry for entry in caught if issubclass(entry.category, OfflineWarning)]
    assert str(warning.message) == (
        f"hf://medfocus/cxr-causal: the Hub is out of reach; the embedded version {VERSION} is used"
    )
    assert len(rows) == 528
    assert waited == []


def test_offline_a_benchmark_by_its_published_name_is_the_embedded_one(no_hub):
    with pytest.warns(OfflineWarning, match=re.escape(f"the embedded version {VERSION} is used")):
        opened = load_benchmark(f"{DATASET}@v{VERSION}")
    assert opened.folder == installed_benchmarks()["phantom"]


@pytest.mark.parametrize(
    "name", ["medfocus/cxr-causal@v1.7.0", "medfocus/cxr-causal/imagenome", "hf://me/mine"]
)
def test_offline_nothing_stands_in_for_what_it_is_not(no_hub, name):
    with pytest.raises(BenchmarkError, match="is out of reach, and no copy is in the cache"):
        load_samples(name)
    with pytest.raises(BenchmarkError, match="is out of reach, and no copy is in the cache"):
        load_benchmark(name)


def test_offline_the_cache_comes_before_the_embedded_track(published, newer, closed_url, monkeypatch):
    publish(published, newer)
    load_samples(DATASET, split="dev")
    point_clients_to(closed_url, monkeypatch)
    with pytest.warns(OfflineWarning, match="the copy in the cache is used"):
        assert len(load_samples(DATASET, split="dev")) == 2
    with pytest.warns(OfflineWarning, match="the copy in the cache is used"):
        assert load_benchmark(DATASET).version == "1.1.0"


@pytest.mark.parametrize("url", [None, "http://no-such-host.invalid", "ftp://x"])
def test_that_the_hub_is_out_of_reach_is_found_out(hf_home, closed_url, monkeypatch, url):
    point_clients_to(url or closed_url, monkeypatch)
    assert not hub_answers()


def test_a_hub_that_never_answers_is_not_waited_for(hf_home, monkeypatch):
    assert ANSWER_SECONDS <= 2.5
    monkeypatch.setattr("medfocus_bench.data.hub.client.ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_clients_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        assert not hub_answers()


def test_a_name_server_that_never_answers_is_not_waited_for(hf_home, monkeypatch):
    """Looking up a name has no time limit of its own."""
    monkeypatch.setattr("medfocus_bench.data.hub.client.ANSWER_SECONDS", 0.2)
    asked, released = threading.Event(), threading.Event()

    def look_up(*words):
        asked.set()
        released.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    point_clients_to("http://localhost", monkeypatch)
    assert not hub_answers()
    assert asked.is_set()
    assert not released.is_set(), "it was still looking when the answer was given"
    released.set()


def test_the_clients_own_offline_mode_is_obeyed(published, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert not hub_answers()
    assert not published.log


def test_any_answer_of_the_hub_counts(hub):
    for status in ("404", "500"):
        hub.faults.clear()
        hub.fault("HEAD", "/api/datasets", status)
        assert hub_answers()


@pytest.mark.parametrize("library", ["datasets", "huggingface_hub"])
def test_a_missing_library_names_the_extra(monkeypatch, library, small):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=re.escape("pip install 'medfocus-bench[hub]'")):
        load_samples(DATASET) if library == "datasets" else load_benchmark("hf://me/mine")
    if library == "huggingface_hub":
        with pytest.warns(OfflineWarning, match="huggingface_hub is missing; the embedded version"):
            assert load_benchmark(DATASET).folder == installed_benchmarks()["phantom"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("medfocus/cxr-causal", HubName(DATASET)),
        ("medfocus/cxr-causal@v1.0.0", HubName(DATASET, "v1.0.0")),
        ("medfocus/cxr-causal/imagenome", HubName(DATASET, None, "imagenome")),
        ("hf://datasets/medfocus/cxr-causal@v1.0.0/vindr_cxr", HubName(DATASET, "v1.0.0", "vindr_cxr")),
        ("hf://me/mine", HubName("me/mine")),
        ("me/mine", None),
        ("phantom", None),
        ("results/run", None),
        ("/medfocus/cxr-causal", None),
    ],
)
def test_what_is_a_name_on_the_hub(text, expected):
    assert hub_name(text) == expected


@pytest.mark.parametrize("text", ["hf://", "hf://mine", "hf://a/b/../c", "hf://a/b@", "hf://a/b\n"])
def test_a_name_on_the_hub_is_read_strictly(text):
    with pytest.raises(BenchmarkError, match="is not a name on the Hub"):
        hub_name(text)


def test_a_folder_of_the_name_wins(tmp_path, monkeypatch):
    write_small(tmp_path / "medfocus" / "cxr-causal", version="7.0.0")
    monkeypatch.chdir(tmp_path)
    assert load_benchmark(DATASET).version == "7.0.0"


def test_a_default_config_that_leads_out_of_the_folder_is_refused(tmp_path):
    write_small(tmp_path / "outside")
    (tmp_path / "inside").mkdir()
    for name in ("../outside", "/", "", "a/b", 7, "a" * 400):
        manifest = {"name": "x", "version": "1", "default_config": name}
        (tmp_path / "inside" / "benchmark.json").write_text(json.dumps(manifest))
        with pytest.raises(BenchmarkError, match="default_config is not the plain name of a folder"):
            load_benchmark(tmp_path / "inside")
