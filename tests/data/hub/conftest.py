"""A Hub on loopback that the real clients talk to, and exported repositories."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from medfocus_bench.data.hub.publish import export
from medfocus_bench.data.hub.repository import DATASET
from medfocus_bench.data.resolve import installed_benchmarks

from . import mini_hub
from .mini_hub import MiniHub
from .rows import write_pointers, write_small

TOKEN = "hf_of_the_owner"
OTHER_TOKEN = "hf_of_somebody_else"


@pytest.fixture(scope="session")
def server():
    owner = DATASET.split("/", maxsplit=1)[0]
    with mini_hub.running({TOKEN: owner, OTHER_TOKEN: "somebody"}) as hub:
        yield hub


@pytest.fixture
def hf_home(tmp_path, monkeypatch):
    """An empty home of the Hugging Face libraries, which read theirs when they are imported."""
    home = tmp_path / "hf"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_"))]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def hub(server, hf_home, monkeypatch):
    """The Hub, empty, as the one that the clients talk to; nobody is logged in."""
    server.reset()
    point_clients_to(server.url, monkeypatch)
    return server


@pytest.fixture
def no_hub(hf_home, closed_url, monkeypatch):
    """The clients' Hub is a closed port."""
    point_clients_to(closed_url, monkeypatch)


def point_clients_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
    monkeypatch.setattr(
        datasets.config, "HUB_DATASETS_URL", url + "/datasets/{repo_id}/resolve/{revision}/{path}"
    )


def publish(hub: MiniHub, folder: Path, repo: str = DATASET, *, private: bool = False) -> None:
    """Puts an exported folder on the Hub as a push leaves it: a commit, with the tag of its version."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    version = json.loads(files["benchmark.json"])["version"]
    hub.put(repo, files, tag=f"v{version}", private=private)


@pytest.fixture
def owner(monkeypatch):
    """The owner of the dataset is logged in."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def no_waits(monkeypatch):
    """The client retries as it does, without the seconds between."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def environment(hub: MiniHub, home: Path, **more: str) -> Mapping[str, str]:
    """The environment of a program of its own that talks to the Hub."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "OMP_NUM_THREADS") if name in os.environ}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HOME": str(home),
    }
    return kept | settings | more


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The small open benchmark, which no test changes."""
    return write_small(tmp_path_factory.mktemp("plain") / "source")


@pytest.fixture(scope="session")
def small(tmp_path_factory, plain):
    """A small exported repository: phantom and all three licensed sources."""
    folder = tmp_path_factory.mktemp("small")
    export(folder / "out", plain, [write_pointers(folder / "pointers")])
    return folder / "out"


@pytest.fixture(scope="session")
def embedded(tmp_path_factory):
    """The shipped track as an exported repository, with pointers of the licensed sources."""
    folder = tmp_path_factory.mktemp("embedded")
    export(folder / "out", installed_benchmarks()["phantom"], [write_pointers(folder / "pointers")])
    return folder / "out"
