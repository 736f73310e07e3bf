"""A small Hugging Face hub on loopback: what huggingface_hub asks of it to create, push, look up and fetch models."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Files from this size on are kept as LFS objects, by their SHA-256.
LFS_FROM = 100_000


@dataclass
class Repository:
    """Files of the one commit that there is; `private` ones need the hub's token."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        return hashlib.sha1(b"".join(f"{name}".encode() + self.files[name] for name in sorted(self.files))).hexdigest()


@dataclass
class Hub:
    """State of the server, which tests read and change.

    `served` are (file, first byte, bytes sent) of every download. `budget`: bytes that it serves before it stands
    still. `broken`: files whose next download breaks off half-way.
    """

    endpoint: str = ""
    token: str = "hf_of_the_loopback_hub"
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    served: list[tuple[str, int, int]] = field(default_factory=list)
    budget: int | None = None
    exhausted: threading.Event = field(default_factory=threading.Event)
    broken: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> bool:
        """Whether so many bytes more may be served."""
        with self.lock:
            if self.budget is None:
                return True
            self.budget -= size
            if self.budget < 0:
                self.exhausted.set()
            return self.budget >= 0


class Handler(BaseHTTPRequestHandler):
    """One request. The hub lies on the server."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        """JSON, or an error as the hub names it."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def known(self, name: str) -> Repository | None:
        """The repository, where it is there and the caller may see it; the hub does not say which of both is wrong."""
        found = self.hub.repositories.get(name)
        with_token = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if found is None or (found.private and not with_token):
            self.answer({"error": "Repository not found"}, 404 if with_token else 401, X_Error_Code="RepoNotFound")
            return None
        return found

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*found.groups())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self.info(*found.groups())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            if repository := self.known(found[1]):
                self.answer([entry(name, content) for name, content in repository.files.items()])
        else:
            self.answer({"error": f"no such page {path}"}, 404)

    do_HEAD = do_GET

    def info(self, name: str, revision: str | None) -> None:
        repository = self.known(name)
        if repository is None:
            return
        if revision not in (None, "main", repository.commit):
            self.answer({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
            return
        siblings = [{"rfilename": each} for each in repository.files]
        self.answer({"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings, "tags": []})

    def resolve(self, name: str, revision: str, file: str) -> None:
        repository = self.known(name)
        if repository is None:
            return
        content = repository.files.get(file)
        if content is None:
            self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{etag(content)}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command != "HEAD":
            self.send(file, content, start)

    def send(self, file: str, content: bytes, start: int) -> None:
        end = len(content)
        if file in self.hub.broken:
            self.hub.broken.discard(file)
            end = (start + end) // 2
        sent = start
        while sent < end:
            part = content[sent : min(sent + 65536, end)]
            if not self.hub.take(len(part)):
                self.close_connection = True
                with contextlib.suppress(ConnectionError):
                    self.rfile.read()  # stands still until the other side is gone
                return
            self.wfile.write(part)
            sent += len(part)
        self.hub.served.append((file, start, sent - start))
        if end < len(content):
            self.close_connection = True

    def do_POST(self) -> None:
        path, body = self.path.partition("?")[0], self.body()
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.hub.repositories.setdefault(name, Repository(bool(asked.get("private"))))
            self.answer({"url": f"{self.hub.endpoint}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/[^/]+", path):
            if repository := self.known(found[1]):
                files = repository.files.items()
                names = re.findall(r"paths=([^&]+)", body.decode()) if body[:1] != b"{" else json.loads(body)["paths"]
                names = [each.replace("%2F", "/") for each in names]
                self.answer([entry(name, content) for name, content in files if name in names])
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/[^/]+", path):
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] >= LFS_FROM else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            self.answer({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                each | {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", path):
            repository = self.hub.repositories[found[1]]
            for line in map(json.loads, body.splitlines()):
                self.commit(repository, line["key"], line["value"])
            url = f"{self.hub.endpoint}/{found[1]}/commit/{repository.commit}"
            self.answer({"commitUrl": url, "commitOid": repository.commit, "success": True})
        else:
            self.answer({"error": f"no such page {path}"}, 404)

    def commit(self, repository: Repository, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            repository.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            repository.files[value["path"]] = self.hub.objects[value["oid"]]

    def do_PUT(self) -> None:
        content, oid = self.body(), self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self.answer({})


def etag(content: bytes) -> str:
    """SHA-256 of an LFS object, git's SHA-1 of another file."""
    if len(content) >= LFS_FROM:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def entry(name: str, content: bytes) -> dict[str, Any]:
    """A line of a repository's tree."""
    found: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
    if len(content) >= LFS_FROM:
        found["lfs"] = {"oid": etag(content), "size": len(content), "pointerSize": 130}
    return found


@contextlib.contextmanager
def hub_on_loopback() -> Iterator[Hub]:
    """A hub until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
