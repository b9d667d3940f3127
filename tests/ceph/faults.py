"""A proxy before the gateway that answers wrongly when it is told to: what it was asked for may have happened all the same."""

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "keep-alive"}
HANG = 4  # seconds; longer than the server is told to wait for an answer


def error(status, code, text=""):
    return status, f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{text or code}</Message></Error>'.encode()


# fault → (whether the gateway gets the request, what is answered; None: nothing)
FAULTS = {
    "lost": (True, None),
    "500 after": (True, error(500, "InternalError")),
    "404 after": (True, error(404, "NoSuchUpload")),
    "200 with an error": (True, error(200, "InternalError", "We encountered an internal error. Please try again.")),
    "500": (False, error(500, "InternalError")),
    "503": (False, error(503, "SlowDown")),
    "429": (False, error(429, "TooManyRequests")),
    "hang": (False, None),
    "short": (True, None),
    "flipped": (True, None),
}


class FaultProxy:
    """`break_next` names the request that gets a fault; `hits` are those that got one, in their order."""

    def __init__(self, endpoint):
        self.gateway, self.faults, self.hits, self.lock = urlsplit(endpoint).netloc, [], [], threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                proxy.handle(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def break_next(self, method, part, fault):
        """The next request of this method with `part` in its target."""
        with self.lock:
            self.faults.append((method, part, fault))

    def taken(self, method, target):
        with self.lock:
            for fault in self.faults:
                if fault[0] == method and fault[1] in target:
                    self.faults.remove(fault)
                    self.hits.append(fault)
                    return fault[2]
        return None

    def handle(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.taken(request.command, request.path)
        forwarded, answer = FAULTS.get(fault, (True, None))
        if forwarded:
            status, headers, content = self.ask(request, body)
        if fault is None:
            return self.answer(request, status, headers, content)
        if answer is not None:
            status, content = answer
            return self.answer(request, status, [("Content-Type", "application/xml")], content)
        if fault == "hang":
            time.sleep(HANG)
        elif fault == "short":
            self.answer(request, status, headers, content[: len(content) // 2], len(content))
        elif fault == "flipped":
            middle = len(content) // 2
            return self.answer(request, status, headers, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        request.close_connection = True

    def ask(self, request, body):
        """The gateway's own answer. The request goes as it came, `Host` too, since that is signed."""
        gateway = http.client.HTTPConnection(self.gateway, timeout=120)
        try:
            gateway.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in HOP:
                    gateway.putheader(name, value)
            gateway.endheaders(body)
            answer = gateway.getresponse()
            length = answer.getheader("Content-Length")
            content = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP | {"content-length"}]
            # A HEAD tells the length of what it does not send.
            if request.command == "HEAD" and length is not None:
                headers.append(("Content-Length", length))
            return answer.status, headers, content
        finally:
            gateway.close()

    def answer(self, request, status, headers, content, length=None):
        try:
            request.send_response_only(status)
            for name, value in headers:
                request.send_header(name, value)
            if request.command != "HEAD":
                request.send_header("Content-Length", str(len(content) if length is None else length))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)
            request.wfile.flush()
        except OSError:
            request.close_connection = True
