"""A web server on this machine that answers as badly as it is told to."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def whole(body):
    def answer(handler):
        start(handler, len(body))
        handler.wfile.write(body)

    return answer


def cut(body):
    """Announce all of it, send half, and hang up."""

    def answer(handler):
        start(handler, len(body))
        handler.wfile.write(body[: len(body) // 2])

    return answer


def unannounced(body):
    """Never say how much there is: the end of the connection is the end of the file."""

    def answer(handler):
        start(handler, None)
        handler.wfile.write(body)

    return answer


def status(code):
    def answer(handler):
        handler.send_response(code)
        handler.end_headers()

    return answer


def halting(body, halfway, go_on):
    """Send half, say so, and send the rest when told to."""

    def answer(handler):
        start(handler, len(body))
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        halfway.set()
        go_on.wait(30)
        handler.wfile.write(body[len(body) // 2 :])

    return answer


def start(handler, length):
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        # Who asked may be dead by now: that is what some tests are about.
        with contextlib.suppress(ConnectionError):
            self.server.answer(self)

    def log_message(self, *args):
        """Say nothing."""


@contextlib.contextmanager
def serving():
    """A server with `url`, `answer` (set it) and `asked` (the paths of all requests so far)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.answer, server.asked = status(500), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
