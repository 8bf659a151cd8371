"""A small Hub on this machine: as much of its HTTP interface as the libraries need, and faults on demand.

It serves repositories of models and data sets, each at one commit and the branch `main`, without xet storage. Whatever
is asked of it is kept, so that a test sees what was asked again, from which byte on, and with which token.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BRANCH = "main"
# What git attributes of the Hub keep apart from git.
LARGE = (".safetensors", ".parquet", ".bin")


@dataclass
class Repo:
    """A repository and how it misbehaves.

    `gated` is the status that it answers with (401, 403), `down` one of every request; `breaks` maps a file to the
    bytes after which its connection breaks, and `break_times` says how often (None: whenever it is asked for).
    """

    files: Mapping[str, bytes]
    kind: str = "models"
    gated: int | None = None
    down: int | None = None
    breaks: dict[str, int] = field(default_factory=dict)
    break_times: int | None = None
    broken: int = 0

    @property
    def commit(self) -> str:
        """The digest of everything in it, as git would have one."""
        parts = (f"{name}:{_sha1(data)}" for name, data in sorted(self.files.items()))
        return hashlib.sha1("\n".join(parts).encode()).hexdigest()

    def entry(self, name: str) -> dict[str, object]:
        """A file as the listing tells it."""
        data = self.files[name]
        found: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": _sha1(data)}
        if name.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
        return found


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class Hub:
    """The server's address, its repositories by id, and what was asked of it."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.repos: dict[str, Repo] = {}
        self.asked: list[Asked] = []

    def downloads(self, name: str) -> list[Asked]:
        """The requests for the content of a file."""
        return [each for each in self.asked if each.method == "GET" and each.path.endswith(f"/{name}")]


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub inside the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = Hub(server.server_address[1])  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _sha1(data: bytes) -> str:
    """A file's digest as git makes it."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)(?:/(?P<what>[a-z-]+)(?:/(?P<rest>.+))?)?")
_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._answer(self.rfile.read(length))

    def _answer(self, body: bytes = b"") -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(Asked(self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if (found := _API.fullmatch(path)) is not None:
            repo = self._allowed(hub, found["id"], found["kind"])
            if repo is not None:
                self._tell(repo, found["id"], found["what"], found["rest"], body)
        elif (found := _FILE.fullmatch(path)) is not None:
            repo = self._allowed(hub, found["id"], "datasets" if found["kind"] else "models")
            if repo is not None and self._is_open(repo) and self._knows(repo, found["revision"]):
                self._file(repo, found["name"])
        else:
            self._refuse(404, None)

    def _allowed(self, hub: Hub, name: str, kind: str) -> Repo | None:
        repo = hub.repos.get(name)
        if repo is None or repo.kind != kind:
            self._refuse(404, "RepoNotFound")
        elif repo.down is not None:
            self._refuse(repo.down, None)
        else:
            return repo
        return None

    def _is_open(self, repo: Repo) -> bool:
        """Whether its files may be read: of a gated one everybody may see the listing, and no more."""
        if repo.gated is not None:
            self._refuse(repo.gated, "GatedRepo")
        return repo.gated is None

    def _knows(self, repo: Repo, revision: str) -> bool:
        if revision in (BRANCH, repo.commit):
            return True
        self._refuse(404, "RevisionNotFound")
        return False

    def _tell(self, repo: Repo, name: str, what: str | None, rest: str | None, body: bytes) -> None:
        """What the interface says of a repository: itself, its files, or some of them."""
        revision, _, under = (rest or BRANCH).partition("/")
        if not self._knows(repo, revision):
            return
        if what in (None, "revision"):
            siblings = [{"rfilename": each} for each in sorted(repo.files)]
            self._json({"id": name, "sha": repo.commit, "private": False, "tags": [], "siblings": siblings})
        elif what == "auth-check":
            if self._is_open(repo):
                self._json({})
        elif what == "tree":
            chosen = [each for each in sorted(repo.files) if not under or each.startswith(f"{under}/")]
            if under and not chosen:
                self._refuse(404, "EntryNotFound")
            else:
                self._json([repo.entry(each) for each in chosen])
        elif what == "paths-info":
            text = body.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
            self._json([repo.entry(each) for each in wanted if each in repo.files])
        else:
            self._refuse(404, None)

    def _file(self, repo: Repo, name: str) -> None:
        if name not in repo.files:
            self._refuse(404, "EntryNotFound", repo.commit)
            return
        data, entry = repo.files[name], repo.entry(name)
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        large = entry.get("lfs")
        digest = large["oid"] if isinstance(large, dict) else entry["oid"]
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", repo.commit)
        if isinstance(large, dict):
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(data)
        if name in repo.breaks and (repo.break_times is None or repo.broken < repo.break_times):
            repo.broken += 1
            end = max(start, repo.breaks[name])
        self.wfile.write(data[start:end])
        if end < len(data):
            # As a connection that breaks: fewer bytes than were promised, and then nothing more.
            self.wfile.flush()
            self.close_connection = True

    def _json(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str | None, commit: str | None = None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"refused: {code}")
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()
