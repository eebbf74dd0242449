"""A local server that stalls, cuts, lies, and sends other things than were asked for."""

import contextlib
import http.server
import mimetypes
import os
import random
import threading
from pathlib import Path

import pytest

from utils import http_download

DATA = random.Random(0).randbytes(300_000)
PAGE = b"\n<!DOCTYPE html><html><head><title>Quota &amp;\n exceeded</title></head></html>"


def files(folder):
    """The paths of all files below folder, relative to it, sorted."""
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


class Site:
    """Answers each path by a script: one dictionary a request, the last one ever after."""

    def __init__(self, server):
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.scripts, self.requests, self.posts = {}, [], []
        self.stalling = 0  # answers that have stopped in the middle and hold their connection
        self.released = threading.Event()  # ends every stall

    def add(self, path, data, *answers):
        self.scripts[path] = (data, list(answers) or [{}])
        return self.url + path

    def add_folder(self, folder):
        """The files of a web page, each with its type."""
        for name in files(folder):
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            self.add(f"/{Path(name).as_posix()}", Path(folder, name).read_bytes(), {"kind": kind})
        self.scripts["/"] = self.scripts["/index.html"]

    def answer_once(self, name, **answer):
        """Answer the next request for the file of that name in another way."""
        (path,) = (path for path in self.scripts if path.endswith(f"/{name}"))
        self.scripts[path][1].insert(0, answer)

    def ranges(self, path="/file.zip"):
        return [headers.get("Range") for asked, headers in self.requests if asked == path]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        self.server.site.posts.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def do_GET(self):
        site = self.server.site
        site.requests.append((self.path, dict(self.headers)))
        if self.path not in site.scripts:
            return self.answer(b"no such file", status=404)
        data, answers = site.scripts[self.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer(self)
        self.answer(**{"data": data} | answer)

    def answer(
        self, data, status=200, kind="application/zip", knows_range=True, shift=0, piece=None,
        stop=None, stall=0.0, length=None, chunked=False, headers=(), silent=False,
    ):  # fmt: skip
        if silent:
            self.close_connection = True
            return
        start, total, asked = 0, len(data), self.headers.get("Range")
        headers = dict(headers)
        if asked and knows_range and status == 200:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                status, headers["Content-Range"], data = 416, f"bytes */{total}", b""
            else:
                status, start = 206, start + shift
                data = data[start : start + (piece or total)]
                headers["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{total}"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", length or len(data))
        self.end_headers()
        sent = data if stop is None else data[: max(stop - start, 0)]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if chunked else sent)
        if stop is not None or (length or 0) > len(data):
            self.wfile.flush()
            self.server.site.stalling += 1
            self.server.site.released.wait(stall)
            self.server.site.stalling -= 1
            self.close_connection = True
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")


@contextlib.contextmanager
def local_site():
    """Run the server -> its Site; meanwhile downloads use no proxy, and pause briefly."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = Site(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http_download, "PAUSE", 0.01)
            for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
                patch.delenv(name)
            yield server.site
    finally:
        server.site.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
