"""A server that speaks the protocol of the Hugging Face hub, and can be told to misbehave.

    with FakeHub() as hub:
        hub.add("org/name", {"config.json": b"{}", "model.safetensors": weights})
        ... HF_ENDPOINT=hub.endpoint ...

Files of more than LFS_BYTES are stored "with LFS": their hash is SHA-256, and requests for them are redirected to a
second server under another host name, as the real hub does. What is asked is in hub.log.
"""

import dataclasses
import hashlib
import http.server
import json
import re
import socket
import struct
import threading
import time
import urllib.parse

LFS_BYTES = 4096


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def blob_of(data):
    return hashlib.sha256(data).hexdigest() if len(data) > LFS_BYTES else git_sha1(data)


@dataclasses.dataclass
class Asked:
    """A request that came in."""

    method: str
    path: str
    at_cdn: bool
    token: str
    range: str


@dataclasses.dataclass
class Faults:
    """How the server misbehaves. Those with a number do it for so many answers."""

    cut_after: list = dataclasses.field(default_factory=list)  # bytes of a body, then the connection breaks
    statuses: list = dataclasses.field(default_factory=list)  # (status, headers) instead of an answer
    listing_statuses: list = dataclasses.field(default_factory=list)
    signed_uses: int = 0  # an address at the second server expires after so many uses; 0: never
    no_ranges: bool = False
    ranges_for: int = -1  # so many answers, and from then on none; -1: always
    wrong_bytes: int = 0  # bodies with one byte changed
    length_add: int = 0  # Content-Length and Content-Range tell so many bytes more
    body_add: int = 0  # so many bytes more are sent than announced by the listing
    hang_s: float = 0  # before the body of a file
    bytes_per_s: float = 0  # of each connection
    redirect_to: str = ""  # of everything
    listing: object = None  # the answer in place of the true one
    bare_listing: bool = False  # no sizes, no hashes
    before_body: object = None  # called with the file's path


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, faults = self.server.hub, self.server.hub.faults
        path = urllib.parse.urlsplit(self.path).path
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with hub.lock:
            hub.log.append(Asked(self.command, self.path, self.server.is_cdn, token, self.headers.get("Range", "")))
        try:
            if faults.redirect_to and not self.server.is_cdn:
                self.reply(302, {"Location": faults.redirect_to + self.path})
            elif self.server.is_cdn:
                self.cdn(path)
            elif path.startswith("/api/models/"):
                self.api(path.removeprefix("/api/models/"), token)
            else:
                self.resolve(path, token)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, status, headers=None, body=b""):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self, repo, token):
        """401 and 403 as the hub has them; True if one was sent."""
        if repo is None:
            known = token == self.server.hub.token
            self.reply(404 if known else 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif token and token != self.server.hub.token:
            self.reply(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo.gated and not token:
            self.reply(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."})
        elif repo.gated == "closed":
            self.reply(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "You are not in the authorized list."})
        else:
            return False
        return True

    def api(self, path, token):
        hub = self.server.hub
        match = re.fullmatch(r"([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        repo = hub.repos.get(match[1]) if match else None
        if hub.faults.listing_statuses:
            status, headers = hub.faults.listing_statuses.pop(0)
            return self.reply(status, headers)
        if self.refused(repo, token):
            return None
        revision = urllib.parse.unquote(match[3] or "main")
        if revision not in (repo.commit, *repo.revisions):
            return self.reply(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        body = repo.tree() if match[2] == "tree" else repo.info(hub.faults.bare_listing)
        if hub.faults.listing is not None:
            body = hub.faults.listing
        return self.reply(200, {"Content-Type": "application/json"}, body if isinstance(body, bytes) else json.dumps(body).encode())

    def resolve(self, path, token):
        hub = self.server.hub
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = hub.repos.get(match[1]) if match else None
        if self.refused(repo, token):
            return None
        name = urllib.parse.unquote(match[3])
        if name not in repo.files:
            return self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        if hub.faults.statuses:
            status, headers = hub.faults.statuses.pop(0)
            return self.reply(status, headers)
        data = repo.files[name]
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{blob_of(data)}"', "Accept-Ranges": "bytes"}
        if len(data) <= LFS_BYTES:
            return self.send_file(name, data, headers)
        headers.update({"X-Linked-Etag": f'"{blob_of(data)}"', "X-Linked-Size": str(len(data)),
                        "Location": f"{hub.cdn_endpoint}/{match[1]}/{match[3]}?signature={hub.sign()}"})
        return self.reply(302, headers, b"Found. Redirecting")

    def cdn(self, path):
        hub = self.server.hub
        _, org, name, file = urllib.parse.unquote(path).split("/", 3)
        if not hub.use(urllib.parse.urlsplit(self.path).query):
            return self.reply(403, {}, b"<xml>Request has expired</xml>")
        repo = hub.repos.get(f"{org}/{name}")
        if repo is None or file not in repo.files:
            return self.reply(404)
        data = repo.files[file]
        return self.send_file(file, data, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def send_file(self, name, data, headers):
        hub, faults = self.server.hub, self.server.hub.faults
        begin, end, status = 0, len(data), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        with hub.lock:
            no_ranges = faults.no_ranges or faults.ranges_for == 0
            faults.ranges_for -= bool(asked) and faults.ranges_for > 0
        if asked and not no_ranges:
            begin = int(asked[1])
            end = min(len(data), int(asked[2]) + 1) if asked[2] else len(data)
            if begin >= len(data):
                return self.reply(416, {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data) + faults.length_add}"
        body = bytearray(data[begin:end])
        with hub.lock:
            cut = faults.cut_after.pop(0) if faults.cut_after and self.command == "GET" else None
            wrong = faults.wrong_bytes > 0 and self.command == "GET"
            faults.wrong_bytes -= wrong
        if wrong and body:
            body[len(body) // 2] ^= 1
        body += bytes(faults.body_add)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) + faults.length_add))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if faults.before_body:
            faults.before_body(name)
        if faults.hang_s:
            hub.stopping.wait(faults.hang_s)
        self.send_body(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            # With the option set, closing sends a reset: what a broken connection looks like.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0 if cut % 2 else 1, 0))
            self.close_connection = True
        if faults.length_add:
            self.close_connection = True
        return None

    def send_body(self, body):
        rate = self.server.hub.faults.bytes_per_s
        step = max(1, int(rate / 100)) if rate else 1 << 20
        for at in range(0, len(body), step):
            self.wfile.write(body[at:at + step])
            if rate:
                time.sleep(0.01)


@dataclasses.dataclass
class Repo:
    files: dict
    commit: str
    revisions: tuple = ("main",)
    gated: object = False

    def info(self, bare):
        siblings = []
        for path, data in self.files.items():
            item = {"rfilename": path}
            if not bare:
                item |= {"size": len(data), "blobId": git_sha1(data)}
                if len(data) > LFS_BYTES:
                    item["lfs"] = {"sha256": blob_of(data), "size": len(data), "pointerSize": 130}
            siblings.append(item)
        return {"id": "x", "modelId": "x", "sha": self.commit, "private": False, "gated": bool(self.gated),
                "tags": ["kogia"], "siblings": siblings}

    def tree(self):
        items = []
        for path, data in self.files.items():
            item = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
            if len(data) > LFS_BYTES:
                item["lfs"] = {"oid": blob_of(data), "size": len(data), "pointerSize": 130}
            items.append(item)
        return items


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub, is_cdn):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.is_cdn = hub, is_cdn

    def handle_error(self, *_):
        pass


class FakeHub:
    def __init__(self):
        self.repos, self.log, self.lock, self.faults = {}, [], threading.Lock(), Faults()
        self.token, self.signatures = "hf_right", []
        self.stopping = threading.Event()
        self.servers = [Server(self, False), Server(self, True)]
        self.endpoint = f"http://127.0.0.1:{self.servers[0].server_port}"
        self.cdn_endpoint = f"http://localhost:{self.servers[1].server_port}"  # another host to who compares names
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def sign(self):
        with self.lock:
            self.signatures.append(self.faults.signed_uses or -1)
            return len(self.signatures) - 1

    def use(self, query):
        """Whether the address may be used (once more)."""
        signature = int(query.removeprefix("signature="))
        with self.lock:
            left = self.signatures[signature]
            self.signatures[signature] = left - (left > 0)
        return left != 0

    def add(self, name, files, **more):
        commit = hashlib.sha1(name.encode() + b"".join(k.encode() + v for k, v in files.items())).hexdigest()
        self.repos[name] = Repo(files=dict(files), commit=commit, **more)
        return commit
