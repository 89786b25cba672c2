"""Google Cloud Storage on loopback: what TensorFlow's client asks of the service, answered from memory.

TensorFlow reaches the service under its own name alone. So this is an HTTPS proxy that answers in that name,
under a certificate made for the occasion, and connects to nothing. It answers from a thread, so that what holds
Python's lock while it reads, as `tf.train.load_checkpoint` does, waits for ever in the process of the service.
"""

import contextlib
import fnmatch
import json
import pathlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"

_HOSTS = ("www.googleapis.com", "storage.googleapis.com")
_TOKEN = "a-token"
# Small, so that a listing has several pages; the service itself has 1,000.
_PAGE_SIZE = 3

_BUCKET = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)")
_LAYOUT = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/storageLayout")
_LISTING = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/o")
_OBJECT = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)")
_REWRITE = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)/rewriteTo/b/(?P<to>[^/]+)/o/(?P<new>[^/]+)")
_UPLOAD = re.compile(r"/upload/storage/v1/b/(?P<bucket>[^/]+)/o")
_CONTENT = re.compile(r"/(?P<bucket>[^/]+)/(?P<name>.+)")


class FakeStorage:
    """The service, with one bucket named BUCKET."""

    def __init__(self, folder: pathlib.Path):
        """`folder` is where its certificate and key are kept; needs the `openssl` command."""
        self.objects: dict[str, bytes] = {}
        self.generations: dict[str, int] = {}
        self.updated: dict[str, datetime] = {}
        self.clock_ahead = timedelta()
        self.uploads: dict[str, str] = {}
        self.lock = threading.RLock()
        self._held_pattern = ""
        self._failures: list[str] = []
        self._arrived, self._released = threading.Event(), threading.Event()
        self._certificate, key = folder / "certificate.pem", folder / "key.pem"
        names = ",".join(f"DNS:{host}" for host in _HOSTS)
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "1", "-subj", "/CN=fake storage", "-addext", f"subjectAltName={names}"),
                *("-keyout", str(key), "-out", str(self._certificate)),
            ],
            check=True,
            capture_output=True,
        )
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self._certificate, key)

    @contextlib.contextmanager
    def running(self) -> Iterator[dict[str, str]]:
        """Serves while the body runs, to every process with the environment that it gives."""
        server = _Server(self)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {
                "https_proxy": f"http://127.0.0.1:{server.server_port}",
                "no_proxy": "",
                "NO_PROXY": "",
                "CURL_CA_BUNDLE": str(self._certificate),
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": _TOKEN,
                "NO_GCE_CHECK": "1",
            }
        finally:
            self._released.set()
            server.shutdown()
            thread.join()
            server.server_close()

    @contextlib.contextmanager
    def holding_uploads(self, pattern: str) -> Iterator[threading.Event]:
        """Leaves the upload of an object whose name fits `pattern` unanswered until the body ends.

        The event that it gives is set as soon as one waits.
        """
        self._arrived.clear()
        self._released.clear()
        self._held_pattern = pattern
        try:
            yield self._arrived
        finally:
            self._held_pattern = ""
            self._released.set()

    @contextlib.contextmanager
    def failing(self, *failures: str) -> Iterator[list[str]]:
        """Fails the next requests for an object, one for each failure.

        Args:
          *failures: METHOD PATTERN STATUS, such as "POST runs/* 503". The status 0 breaks the connection off.

        Yields:
          The failures that are left.
        """
        self._failures = [*failures]
        try:
            yield self._failures
        finally:
            self._failures = []

    def next_failure(self, method: str, name: str) -> int | None:
        """The status that a request for an object is to fail with; None if it is not to fail."""
        with self.lock:
            for failure in self._failures:
                its_method, pattern, status = failure.split()
                if its_method == method and fnmatch.fnmatchcase(name, pattern):
                    self._failures.remove(failure)
                    return int(status)
        return None

    def wait_if_held(self, name: str) -> None:
        if fnmatch.fnmatchcase(name, self._held_pattern):
            self._arrived.set()
            self._released.wait()

    def put(self, name: str, content: bytes) -> None:
        with self.lock:
            self.objects[name] = content
            self.generations[name] = self.generations.get(name, 0) + 1
            self.updated[name] = datetime.now(timezone.utc) + self.clock_ahead

    def download(self, prefix: str, folder: pathlib.Path) -> None:
        """Copies the objects below `prefix` into a local folder, those that stand for folders left out."""
        for name, content in self.objects.items():
            if name.startswith(prefix) and not name.endswith("/"):
                path = folder / name.removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


class _Server(ThreadingHTTPServer):
    # Killed clients leave connections behind.
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, storage: FakeStorage):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.storage = storage

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""


def _may_fail(answer: "Callable[[_Handler], None]") -> "Callable[[_Handler], None]":
    """Fails a request instead, if that is asked for."""

    def answer_or_fail(handler: "_Handler") -> None:
        status = handler.server.storage.next_failure(handler.command, handler.object_name())
        if status is None:
            answer(handler)
        elif status:
            handler.body()
            handler.answer(status)
        else:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)

    return answer_or_fail


class _Handler(BaseHTTPRequestHandler):
    """One connection: CONNECT in the clear, then requests to the service."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_CONNECT(self) -> None:
        host, _, port = self.path.partition(":")
        if host not in _HOSTS or port != "443":
            self.answer(403)
            return
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.storage.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    @_may_fail
    def do_GET(self) -> None:
        """The bucket, a listing, an object's metadata, or (from the other host) its content."""
        storage, path, query = self._request()
        if self.headers["Host"] == "storage.googleapis.com":
            if match := _CONTENT.fullmatch(path):
                self._answer_content(self._find(match["bucket"], match["name"]))
        elif match := _LISTING.fullmatch(path):
            self._answer_json(_list(list(storage.objects), query) if match["bucket"] == BUCKET else None)
        elif match := _OBJECT.fullmatch(path):
            name = unquote(match["name"])
            self._answer_json(self._metadata(name) if self._find(match["bucket"], name) is not None else None)
        elif match := _BUCKET.fullmatch(path):
            self._answer_json({"name": BUCKET, "location": "US"} if match["bucket"] == BUCKET else None)
        elif match := _LAYOUT.fullmatch(path):
            is_there = match["bucket"] == BUCKET
            self._answer_json({"hierarchicalNamespace": {"enabled": False}} if is_there else None)
        else:
            self.answer(400)

    @_may_fail
    def do_POST(self) -> None:
        """Begins an upload, uploads at once, or copies."""
        storage, path, query = self._request()
        content = self.body()
        if match := _REWRITE.fullmatch(path):
            copied = self._find(match["bucket"], unquote(match["name"]))
            if copied is not None:
                storage.put(unquote(match["new"]), copied)
            self._answer_json({"done": True} if copied is not None else None)
        elif not (match := _UPLOAD.fullmatch(path)) or match["bucket"] != BUCKET:
            self.answer(404)
        elif query.get("ifGenerationMatch") == "0" and query["name"] in storage.objects:
            self.answer(412)
        elif query["uploadType"] == "media":
            storage.put(query["name"], content)
            self._answer_json(self._metadata(query["name"]))
        else:
            storage.wait_if_held(query["name"])
            with storage.lock:
                upload = str(len(storage.uploads))
                storage.uploads[upload] = query["name"]
            location = f"https://{_HOSTS[0]}{path}?uploadType=resumable&upload_id={upload}"
            self.answer(200, Location=location)

    @_may_fail
    def do_PUT(self) -> None:
        """The content of an upload, all of it in one request."""
        storage, _, query = self._request()
        content = self.body()
        match = re.fullmatch(r"bytes (?:0-(\d+)|\*)/(\d+)", self.headers["Content-Range"])
        if not match or len(content) != int(match[2]):
            # Also what a client that asks how much has come is told: nothing of it.
            self.answer(308)
            return
        name = storage.uploads[query["upload_id"]]
        storage.put(name, content)
        self._answer_json(self._metadata(name))

    @_may_fail
    def do_DELETE(self) -> None:
        storage, path, _ = self._request()
        match = _OBJECT.fullmatch(path)
        with storage.lock:
            is_there = match and storage.objects.pop(unquote(match["name"]), None) is not None
        self.answer(204 if is_there else 404)

    def _request(self) -> tuple[FakeStorage, str, dict[str, str]]:
        """Who is asked, the path, and the query as a dictionary."""
        assert self.headers["Authorization"] == f"Bearer {_TOKEN}"
        url = urlsplit(self.path)
        return self.server.storage, url.path, {name: values[-1] for name, values in parse_qs(url.query).items()}

    def object_name(self) -> str:
        """The name of the object that is asked for, or the prefix of a listing; "" for none."""
        _, path, query = self._request()
        if "upload_id" in query:
            return self.server.storage.uploads[query["upload_id"]]
        pattern = _CONTENT if self.headers["Host"] == "storage.googleapis.com" else _OBJECT
        match = _REWRITE.fullmatch(path) or pattern.fullmatch(path)
        return unquote(match["name"]) if match else query.get("name", query.get("prefix", ""))

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), base=16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _find(self, bucket: str, name: str) -> bytes | None:
        return self.server.storage.objects.get(unquote(name)) if bucket == BUCKET else None

    def _metadata(self, name: str) -> dict[str, str]:
        storage = self.server.storage
        with storage.lock:
            generation = storage.generations[name]
            size = len(storage.objects[name])
        return {
            "name": name,
            "size": str(size),
            "generation": str(generation),
            "updated": f"{storage.updated[name]:%Y-%m-%dT%H:%M:%S.000Z}",
        }

    def _answer_content(self, content: bytes | None) -> None:
        if content is None:
            self.answer(404)
            return
        first, last = 0, len(content) - 1
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2]), last)
        if first >= len(content):
            self.answer(416)
        else:
            self.answer(206 if match else 200, content[first : last + 1])

    def _answer_json(self, value: dict[str, Any] | None) -> None:
        """None is answered with 404."""
        self.answer(404) if value is None else self.answer(200, json.dumps(value).encode())

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _list(names: list[str], query: dict[str, str]) -> dict[str, Any]:
    """One page of the names below a prefix; what goes on after a delimiter is named once, up to it."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    entries = set()
    for name in names:
        if name.startswith(prefix):
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            entries.add(name if end < 0 else name[: end + 1])
    after_token = sorted(entry for entry in entries if entry > query.get("pageToken", ""))
    page = after_token[: min(_PAGE_SIZE, int(query.get("maxResults", _PAGE_SIZE)))]
    return {
        "items": [{"name": entry} for entry in page if entry in names and not _is_prefix(entry, prefix, delimiter)],
        "prefixes": [entry for entry in page if _is_prefix(entry, prefix, delimiter)],
        **({"nextPageToken": page[-1]} if len(after_token) > len(page) else {}),
    }


def _is_prefix(entry: str, prefix: str, delimiter: str) -> bool:
    return bool(delimiter) and entry != prefix and entry.endswith(delimiter)
