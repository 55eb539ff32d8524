"""Writing the repository of a publication, and sending it to the Hub.

The same rows give the same bytes (with one version of pyarrow): rows are sorted, writer settings are fixed,
and nothing holds a time, a user or a path. A push sends nothing that `export` would not write of the same
rows, byte for byte; since that refuses pixels and boxes of licensed sources, so does a push, whatever the
files are called. It is one commit, then tagged: a push that breaks off leaves the repository as it was, or
with a whole commit that lacks its tag, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from medfocus_bench.data.hub.card import changelog, render_card, render_croissant
from medfocus_bench.data.hub.client import hub_answers, hub_api, hub_client, hub_errors, quiet_hub
from medfocus_bench.data.hub.publication import Publication, PublishedRow, kept_by_lvlm, read_publication
from medfocus_bench.data.hub.repository import (
    CARD_NAME,
    CHANGELOG_NAME,
    CROISSANT_NAME,
    DEFAULT_CONFIG,
    PUBLISHED_SCHEMA,
    REPO_PATTERN,
    ROW_GROUP_ROWS,
    SCHEME,
    SHARD_BYTES,
    VERSION_PATTERN,
    ConfigInfo,
    Repository,
    Shard,
    SplitInfo,
    published_configs,
    shard_name,
)
from medfocus_bench.data.labels import in_numbers
from medfocus_bench.data.manifest import MANIFEST_NAME, write_manifest
from medfocus_bench.data.resolve import locate
from medfocus_bench.errors import BenchmarkError, InputError, first_line
from medfocus_bench.storage import atomic_folder, file_sha256

_RETRY: Final = "run it again: what was sent is not sent twice, and nothing is half-published"
_OF_THE_HUB: Final = ".gitattributes"


def export(
    out: str | Path,
    folder: str | Path = "phantom",
    pointers: Sequence[str | Path] = (),
    *,
    version: str | None = None,
) -> Repository:
    """Write the dataset repository of a benchmark and of folders of pointers to `out`, which must not exist.

    `folder` is that of the benchmark, or its name.
    The folder appears, complete, when all is written. Raises BenchmarkError for what may not be published
    (see `publication`).
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: exists and is not an empty folder; give a new one")
    if version is not None and not VERSION_PATTERN.fullmatch(version):
        raise InputError(f"version {version[:100]!r} is not major.minor.patch, such as 1.2.0")
    publication = read_publication(locate(folder), pointers, version=version)
    if not VERSION_PATTERN.fullmatch(publication.version):
        raise BenchmarkError(
            f"{folder}: version {publication.version!r} is not major.minor.patch; give another with --version"
        )
    if DEFAULT_CONFIG not in publication.configs:
        raise BenchmarkError(f"{folder}: holds no rows of {DEFAULT_CONFIG}, the default config")
    with atomic_folder(target) as work:
        return write_repository(work, publication)


def write_repository(root: Path, publication: Publication) -> Repository:
    """Write all files of a repository into `root`, which is made if it is not there."""
    root.mkdir(parents=True, exist_ok=True)
    configs = []
    for name, splits in publication.configs.items():
        (root / name).mkdir()
        written = tuple(_write_split(root, publication, name, split, rows) for split, rows in splits.items())
        configs.append(ConfigInfo(name, publication.fingerprint(name), written))
    repository = Repository(publication.name, publication.version, tuple(configs))
    for config in repository.configs:
        if published_configs()[config.name].is_open:
            folder = root / config.name  # a benchmark of its own
            write_manifest(folder, repository.name, repository.version, config.fingerprint)
    _write_json(root / MANIFEST_NAME, _manifest(repository))
    (root / CARD_NAME).write_text(render_card(repository), encoding="utf-8")
    (root / CHANGELOG_NAME).write_text(changelog(), encoding="utf-8")
    _write_json(root / CROISSANT_NAME, render_croissant(repository))
    return repository


def published_table(rows: Sequence[PublishedRow], *, place: str) -> pa.Table:
    """Rows as a table of `PUBLISHED_SCHEMA`. Raises BenchmarkError that starts with `place`."""
    try:
        return pa.Table.from_pylist([in_numbers(row) for row in rows], schema=PUBLISHED_SCHEMA)
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise BenchmarkError(f"{place}: a value does not fit its column: {first_line(error)}") from None


def _write_split(
    root: Path, publication: Publication, config: str, split: str, rows: Sequence[PublishedRow]
) -> SplitInfo:
    table = published_table(rows, place=f"{config}, {split}")
    count = max(1, min(-(-table.nbytes // SHARD_BYTES), -(-len(rows) // ROW_GROUP_ROWS)))
    edges = [len(rows) * number // count for number in range(count + 1)]
    shards = []
    for number in range(count):
        path = root / shard_name(config, split, number, count)
        # A large dictionary page stores a picture once, however many rows of a row group share it.
        pq.write_table(
            table.slice(edges[number], edges[number + 1] - edges[number]),
            path,
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            compression_level=3,
            dictionary_pagesize_limit=2**26,
            write_page_index=True,
            version="2.6",
            data_page_version="1.0",
        )
        shards.append(Shard(path.relative_to(root).as_posix(), path.stat().st_size, file_sha256(path)))
    return SplitInfo(
        name=split,
        rows=len(rows),
        kept=kept_by_lvlm(config, split, rows),
        content_bytes=table.nbytes,
        fingerprint=publication.split_fingerprint(config, split),
        shards=tuple(shards),
    )


def _manifest(repository: Repository) -> Mapping[str, Any]:
    return {
        "name": repository.name,
        "version": repository.version,
        "default_config": DEFAULT_CONFIG,
        "configs": {
            config.name: {
                "fingerprint": config.fingerprint,
                "splits": {
                    split.name: {
                        "rows": split.rows,
                        "samples": split.samples,
                        "fingerprint": split.fingerprint,
                    }
                    for split in config.splits
                },
            }
            for config in repository.configs
        },
        "files": {shard.path: {"bytes": shard.size, "sha256": shard.sha256} for shard in repository.shards},
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Changes:
    """Files that a push changes on the Hub."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class Pushed:
    """Result of a push, or of a dry run. `created`: the repository; `tagged`: the tag, if new."""

    repo: str
    tag: str
    created: bool
    changes: Changes
    commit: str | None
    tagged: bool


@dataclass(frozen=True, slots=True)
class _Remote:
    """The Hub's repository: the head, its files (path to sha256 or git id), and those of the tag if any."""

    head: str
    private: bool
    files: Mapping[str, str]
    tag_files: Mapping[str, str] | None


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    remove_configs: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Upload the exported `folder` to the dataset repository `repo`, and tag it.

    Args:
        folder: a folder that `export` wrote.
        repo: `OWNER/NAME`.
        private: create a private repository.
        revision: the tag; only `v` with the folder's version is accepted, which is the default.
        remove_configs: allow the removal of configs that the folder lacks.
        dry_run: compare only, send nothing.

    Raises:
        InputError: for a folder that `export` did not write, for a tag that exists with other content, and
            if the Hub cannot be reached or refuses.
    """
    if not re.fullmatch(REPO_PATTERN, repo):
        raise InputError(f"{repo[:200]}: is not the name of a repository; give OWNER/NAME")
    place = f"{SCHEME}{repo}"
    hub = hub_client()
    with checked_copy(Path(folder)) as (copy, version):
        tag = f"v{version}"
        if revision is not None and revision != tag:
            raise InputError(f"{folder}: holds version {version}, whose tag is {tag}, not {revision[:100]}")
        if not hub_answers():
            raise InputError(f"{place}: the Hub is out of reach; nothing was sent")
        if not dry_run and hub.get_token() is None:
            raise InputError(f"{place}: needs a token; log in with `hf auth login` or set HF_TOKEN")
        with quiet_hub(), hub_errors(place, retry=_RETRY):
            remote = _remote(repo, tag)
            changes = _compare(copy, remote.files if remote else {})
            if remote is not None:
                _check_remote(place, remote, changes, tag, copy, private=private, remove=remove_configs)
            is_published = remote is not None and remote.tag_files is not None
            if is_published:
                changes = Changes((), (), (), tuple(sorted(_files(copy))))
            if dry_run or is_published:
                return Pushed(repo, tag, remote is None, changes, None, tagged=False)
            return _send(copy, repo, tag, changes, remote, private=private)


@contextmanager
def checked_copy(root: Path) -> Iterator[tuple[Path, str]]:
    """Write an exported repository again from its rows; yield the copy and its version.

    Raises InputError for a link, for a file too many, and for any byte of `root` that is not as written.
    """
    found = _files(root)
    if MANIFEST_NAME not in found:
        raise BenchmarkError(
            f"{root}: is not an exported repository; make one with `medfocus-bench data export DIR`"
        )
    publication = read_publication(root)
    with TemporaryDirectory(prefix="medfocus-push-") as temporary:
        copy = Path(temporary) / "repository"
        write_repository(copy, publication)
        expected = _files(copy)
        for path in sorted(found - expected):
            raise BenchmarkError(f"{root / path}: does not belong to a dataset repository; remove it")
        for path in sorted(expected):
            if path not in found:
                raise BenchmarkError(f"{root / path}: is missing; export the repository again")
            if file_sha256(root / path) != file_sha256(copy / path):
                raise BenchmarkError(
                    f"{root / path}: is not what `data export` writes of these rows; export them again (with "
                    "this installation: another version of pyarrow writes other bytes)"
                )
        yield copy, publication.version


def _files(root: Path) -> set[str]:
    """The paths of all files below `root`. Raises BenchmarkError for links and special files."""
    if not root.is_dir() or root.is_symlink():
        raise BenchmarkError(f"{root}: is not a folder; give that of an exported repository")
    paths = set()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise BenchmarkError(f"{path}: is a link or a special file; only plain files are sent")
        paths |= {(Path(folder) / name).relative_to(root).as_posix() for name in files}
    return paths


def _remote(repo: str, tag: str) -> _Remote | None:
    api, errors = hub_api(), hub_client().errors
    try:
        info = api.repo_info(repo, repo_type="dataset")
    except errors.RepositoryNotFoundError:
        return None
    try:
        tag_files = _remote_files(api, repo, tag)
    except errors.RevisionNotFoundError:
        tag_files = None
    return _Remote(info.sha, bool(info.private), _remote_files(api, repo, info.sha), tag_files)


def _remote_files(api: Any, repo: str, revision: str) -> dict[str, str]:
    """Path to sha256 (large files) or git id (others)."""
    tree = api.list_repo_tree(repo, repo_type="dataset", revision=revision, recursive=True)
    return {
        entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
        for entry in tree
        if hasattr(entry, "blob_id") and entry.path != _OF_THE_HUB
    }


def _compare(copy: Path, remote: Mapping[str, str]) -> Changes:
    local = {path: _ids(copy / path) for path in sorted(_files(copy))}
    return Changes(
        added=tuple(path for path in local if path not in remote),
        changed=tuple(path for path in local if path in remote and remote[path] not in local[path]),
        removed=tuple(sorted(remote.keys() - local.keys())),
        unchanged=tuple(path for path in local if remote.get(path) in local[path]),
    )


def _ids(path: Path) -> tuple[str, str]:
    """The two names that the Hub may know a file by: its sha256, and its id in git."""
    data = path.read_bytes()
    return (
        hashlib.sha256(data).hexdigest(),
        hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest(),
    )


def _check_remote(
    place: str, remote: _Remote, changes: Changes, tag: str, copy: Path, *, private: bool, remove: bool
) -> None:
    if private and not remote.private:
        raise InputError(
            f"{place}: exists and is public; make it private on its page, or leave --private out"
        )
    if remote.tag_files is not None and _compare(copy, remote.tag_files):
        raise InputError(
            f"{place}: {tag} is published with other content, and a version is never changed; export with a "
            "higher --version"
        )
    lost = {path.split("/")[0] for path in changes.removed if "/" in path}
    lost -= {path.split("/")[0] for path in _files(copy)}
    if lost and not remove:
        raise InputError(
            f"{place}: holds {', '.join(sorted(lost))}, which this folder lacks; export them too, or allow "
            "their removal with --remove-configs"
        )


def _send(
    copy: Path, repo: str, tag: str, changes: Changes, remote: _Remote | None, *, private: bool
) -> Pushed:
    hub, api = hub_client(), hub_api()
    if remote is None:
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    head = api.repo_info(repo, repo_type="dataset").sha if remote is None else remote.head
    if changes:
        # The parent makes the Hub refuse the commit if somebody else's came in between.
        head = api.create_commit(
            repo,
            [
                *(
                    hub.CommitOperationAdd(path, str(copy / path))
                    for path in (*changes.added, *changes.changed)
                ),
                *(hub.CommitOperationDelete(path) for path in changes.removed),
            ],
            commit_message=f"Version {tag.removeprefix('v')}",
            repo_type="dataset",
            parent_commit=head,
        ).oid
    api.create_tag(repo, tag=tag, revision=head, repo_type="dataset")
    return Pushed(repo, tag, remote is None, changes, head, tagged=True)
