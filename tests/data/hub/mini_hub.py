"""A Hub look-alike on loopback: as much of its HTTP interface as the real clients use on datasets.

Commits, tags, private repositories, tokens, large files with verified sha256, ranges. Faults can be
ordered: a connection that breaks off, a status, a byte that flips. Everything is in memory.

    python -m tests.data.hub.mini_hub FOLDER       # serves an exported folder, prints its address
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".parquet",)
"""Files that are stored apart and named by their sha256."""
ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"

_ID = r"(?P<repo>[^/]+/[^/]+?)"
_ROUTES = (
    ("GET HEAD", r"/api/datasets", "probe"),
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", rf"/datasets/{_ID}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/large/(?P<oid>[0-9a-f]{64})", "store"),
    ("POST", r"/large/verify", "verify"),
    ("GET", rf"/api/datasets/{_ID}(/revision/(?P<rev>[^/]+))?", "info"),
    ("GET", rf"/api/datasets/{_ID}/tree/(?P<rev>[^/]+)(/(?P<below>.*))?", "tree"),
    ("POST", rf"/api/datasets/{_ID}/paths-info/(?P<rev>[^/]+)", "paths_info"),
    ("GET", rf"/api/datasets/{_ID}/refs", "refs"),
    ("POST", rf"/api/datasets/{_ID}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"/api/datasets/{_ID}/commit/(?P<rev>[^/]+)", "commit"),
    ("POST", rf"/api/datasets/{_ID}/tag/(?P<rev>[^/]+)", "tag"),
    ("GET HEAD", rf"/datasets/{_ID}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
)
_WRITES = {"batch", "preupload", "commit", "tag"}


@dataclass(frozen=True)
class Commit:
    sha: str
    message: str
    files: Mapping[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str | None) -> Commit | None:
        if revision in (None, "main"):
            return self.commits[-1]
        wanted = self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.sha == wanted), None)


@dataclass
class Fault:
    """A fault of the requests that match, as often as `times` says.

    `how`: `break` (the connection ends half way through the body), `flip` (a byte of the body is another
    one), or a status such as `503`.
    """

    method: str
    path: str
    how: str
    times: int = 10**6
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if self.hits >= self.times or method != self.method or not re.search(self.path, path):
            return False
        self.hits += 1
        return True


class MiniHub:
    """The server. `tokens`: token -> user, who may write below the user's own name."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.tokens = dict(tokens)
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def fault(self, method: str, path: str, how: str, times: int = 10**6) -> Fault:
        self.faults.append(Fault(method, path, how, times))
        return self.faults[-1]

    def put(self, repo: str, files: Mapping[str, bytes], *, tag: str, private: bool = False) -> None:
        """Commits these files (and no others), without a client."""
        known = self.repos.setdefault(repo, Repo(private, []))
        parent = known.commits[-1].sha if known.commits else repo
        known.commits.append(_commit(tag, {".gitattributes": ATTRIBUTES, **files}, parent))
        known.tags[tag] = known.commits[-1].sha

    def reset(self) -> None:
        self.repos.clear()
        self.large.clear()
        self.faults.clear()
        self.log.clear()


@contextmanager
def running(tokens: Mapping[str, str]) -> Iterator[MiniHub]:
    hub = MiniHub(tokens)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 132}
    return entry


def _commit(message: str, files: Mapping[str, bytes], parent: str) -> Commit:
    digest = hashlib.sha1(f"{parent} {message}".encode())
    for path, data in sorted(files.items()):
        digest.update(path.encode() + hashlib.sha1(data).digest())
    return Commit(digest.hexdigest(), message, dict(files))


class _RefusedError(Exception):
    def __init__(self, status: int, text: str, code: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.code = status, text, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: MiniHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.fault = next((fault for fault in self.hub.faults if fault.strikes(self.command, path)), None)
        try:
            self.body = self._read_body()
            if self.body is None:
                return
            if self.fault is not None and self.fault.how.isdigit():
                raise _RefusedError(int(self.fault.how), "ordered by the test")
            self._route(path)
        except _RefusedError as refused:
            head = {"X-Error-Code": refused.code, "X-Error-Message": refused.text} if refused.code else {}
            self._send({"error": refused.text}, status=refused.status, **head)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _read_body(self) -> bytes | None:
        """The body of the request; None after the connection was broken in the middle of it."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            size = int(self.headers.get("Content-Length") or 0)
            if self._is_fault("break") and self.command in ("PUT", "POST"):
                self.rfile.read(size // 2)
                self._note("broken")
                self._hang_up()
                return None
            data = self.rfile.read(size)
        if self._is_fault("flip") and self.command == "PUT":
            data = bytes([data[0] ^ 1]) + data[1:]
        return data

    def _is_fault(self, how: str) -> bool:
        return self.fault is not None and self.fault.how == how

    def _note(self, outcome: Any) -> None:
        self.hub.log.append(f"{self.command} {self.path} {outcome}")

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, body: Any, status: int = 200, kind: str = "application/json", **head: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if self._is_fault("flip") and self.command == "GET" and status in (200, 206):
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._note(status)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(head.pop("length", len(data))))
        for name, value in head.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._is_fault("break") and self.command == "GET":
            self.wfile.write(data[: len(data) // 2])
            self._hang_up()
            return
        self.wfile.write(data)

    def _route(self, path: str) -> None:
        for methods, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                found = match.groupdict()
                with self.hub.lock:
                    if "repo" in found:
                        found["repo"] = self._opened(found["repo"], to_write=name in _WRITES)
                    getattr(self, f"_{name}")(**found)
                return
        raise _RefusedError(404, f"mini_hub has no route {self.command} {path}")

    def _user(self) -> str | None:
        return self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _opened(self, name: str, *, to_write: bool) -> Repo:
        repo, owner = self.hub.repos.get(name), self._user() == name.split("/", maxsplit=1)[0]
        if repo is None or (repo.private and not owner):
            raise _RefusedError(404 if self._user() else 401, "Repository not found", "RepoNotFound")
        if to_write and not owner:
            raise _RefusedError(403 if self._user() else 401, "You may not write here.")
        return repo

    def _name(self, repo: Repo) -> str:
        return next(name for name, known in self.hub.repos.items() if known is repo)

    def _found(self, repo: Repo, rev: str | None) -> Commit:
        commit = repo.at(rev)
        if commit is None:
            raise _RefusedError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return commit

    def _probe(self) -> None:
        self._send([])

    def _whoami(self) -> None:
        if self._user() is None:
            raise _RefusedError(401, "Invalid username or password.")
        self._send({"type": "user", "id": "0", "name": self._user(), "orgs": []})

    def _validate_yaml(self) -> None:
        self._send({"errors": [], "warnings": []})

    def _create(self) -> None:
        asked, user = json.loads(self.body), self._user()
        name = f"{asked.get('organization') or user}/{asked['name']}"
        if user is None or name.split("/", maxsplit=1)[0] != user:
            raise _RefusedError(403 if user else 401, "You may not create this.")
        address = {"url": f"{self.hub.url}/datasets/{name}", "name": name, "id": name}
        if name in self.hub.repos:
            self._send(address | {"error": "You already created this repo"}, status=409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        first = _commit("initial commit", {".gitattributes": ATTRIBUTES}, name)
        self.hub.repos[name] = Repo(private, [first])
        self._send(address)

    def _batch(self, repo: Repo) -> None:
        answers = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.large:
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.url}/large/{asked['oid']}"},
                    "verify": {"href": f"{self.hub.url}/large/verify"},
                }
            answers.append(answer)
        self._send({"transfer": "basic", "objects": answers}, kind="application/vnd.git-lfs+json")

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusedError(400, "the content does not have this sha256")
        self.hub.large[oid] = self.body
        self._send({})

    def _verify(self) -> None:
        self._send({}, status=200 if json.loads(self.body)["oid"] in self.hub.large else 404)

    def _info(self, repo: Repo, rev: str | None) -> None:
        commit = self._found(repo, rev)
        name = self._name(repo)
        self._send(
            {
                "_id": "0" * 24,
                "id": name,
                "author": name.split("/")[0],
                "sha": commit.sha,
                "private": repo.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            }
        )

    def _tree(self, repo: Repo, rev: str, below: str | None) -> None:
        prefix = f"{below.rstrip('/')}/" if below else ""
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries: dict[str, dict[str, Any]] = {}
        for path, data in sorted(self._found(repo, rev).files.items()):
            if path.startswith(prefix):
                parts = path[len(prefix) :].split("/")
                for depth in range(1, len(parts)):
                    if deep or depth == 1:
                        folder = prefix + "/".join(parts[:depth])
                        entries[folder] = _folder(folder)
                if deep or len(parts) == 1:
                    entries[path] = _entry(path, data)
        if prefix and not entries:
            raise _RefusedError(404, "Entry not found", "EntryNotFound")
        self._send(list(entries.values()))

    def _paths_info(self, repo: Repo, rev: str) -> None:
        text = self.body.decode()
        asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        files, answers = self._found(repo, rev).files, []
        for path in (path.strip("/") for path in asked):
            if path in files:
                answers.append(_entry(path, files[path]))
            elif any(known.startswith(f"{path}/") for known in files):
                answers.append(_folder(path))
        self._send(answers)

    def _refs(self, repo: Repo) -> None:
        head = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].sha}
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in repo.tags.items()
        ]
        self._send({"branches": [head], "tags": tags, "converts": []})

    def _preupload(self, repo: Repo, rev: str) -> None:
        files, answers = self._found(repo, rev).files, []
        for path in (asked["path"] for asked in json.loads(self.body)["files"]):
            known = _entry(path, files[path]) if path in files else {}
            mode = "lfs" if path.endswith(LARGE) else "regular"
            oid = known.get("lfs", known).get("oid")
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send({"files": answers})

    def _commit(self, repo: Repo, rev: str) -> None:
        """All or nothing: the files change only once every operation was found sound."""
        files, message = dict(self._found(repo, rev).files), ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, repo.commits[-1].sha):
                    raise _RefusedError(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise _RefusedError(400, f"no content of {value['oid']}")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise _RefusedError(400, f"mini_hub knows no {key}")
        repo.commits.append(_commit(message, files, repo.commits[-1].sha))
        sha = repo.commits[-1].sha
        self._send(
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{self.hub.url}/datasets/{self._name(repo)}/commit/{sha}",
            }
        )

    def _tag(self, repo: Repo, rev: str) -> None:
        tag = json.loads(self.body)["tag"]
        if tag in repo.tags:
            raise _RefusedError(409, "Tag reference exists already.")
        repo.tags[tag] = self._found(repo, rev).sha
        self._send({})

    def _resolve(self, repo: Repo, rev: str, path: str) -> None:
        commit = self._found(repo, rev)
        if path not in commit.files:
            raise _RefusedError(404, "Entry not found", "EntryNotFound")
        data = commit.files[path]
        entry = _entry(path, data)
        name = entry.get("lfs", entry)["oid"]
        head: dict[str, Any] = {"ETag": f'"{name}"', "X_Repo_Commit": commit.sha, "Accept_Ranges": "bytes"}
        if "lfs" in entry:
            head |= {"X_Linked_Etag": f'"{name}"', "X_Linked_Size": len(data)}
        kind = "application/octet-stream"
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if self.command == "HEAD":
            self._send(b"", kind=kind, length=len(data), **head)
        elif asked:
            start = int(asked[1]) if asked[1] else len(data) - int(asked[2])
            end = min(int(asked[2]), len(data) - 1) if asked[1] and asked[2] else len(data) - 1
            head["Content_Range"] = f"bytes {start}-{end}/{len(data)}"
            self._send(data[start : end + 1], status=206, kind=kind, **head)
        else:
            self._send(data, kind=kind, **head)


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def main(folder: Path) -> None:
    """Serves an exported folder as the published dataset until it is stopped."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    version = json.loads(files["benchmark.json"])["version"]
    with running({"hf_of_the_owner": "medfocus"}) as hub:
        hub.put("medfocus/cxr-causal", files, tag=f"v{version}")
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
