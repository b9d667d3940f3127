"""A relay between a driver and its server with a hand on the commit: it keeps the publish back, or the answer to it.

Both are known by their bytes: an action's name and an answer's JSON travel as they are.
"""

import socket
import threading

PUBLISH = b"\n\x07publish"  # the first field of the action
VERSION = b'"version":'  # in its answer


class Relay:
    """Passes everything on, to the server at `address` and back, until a publish comes.

    - `keeps="publish"`: neither it nor what follows it on its connection gets to the server.
    - `keeps="answer"`: it gets there, and nothing of what the server says to it gets back.

    Attributes:
        kept: set once the relay has in hand what it keeps.
    """

    def __init__(self, address, keeps):
        assert keeps in ("publish", "answer")
        host, port = address.removeprefix("grpc://").rsplit(":", 1)
        self.server, self.keeps, self.kept = (host, int(port)), keeps, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"grpc://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lines = []

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        for line in self.lines:
            line.close()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            self.lines.append(Line(self, near))


class Line:
    """One connection. It ends for both sides when it ends for one, as a killed driver's does."""

    def __init__(self, relay, near):
        self.relay, self.near = relay, near
        self.far = socket.create_connection(relay.server)
        self.published = False
        for pass_on in (self.forth, self.back):
            threading.Thread(target=self.until_the_end, args=(pass_on,), daemon=True).start()

    def close(self):
        for end in (self.near, self.far):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended
                pass

    def until_the_end(self, pass_on):
        try:
            pass_on()
        except OSError:  # the other direction has ended it
            pass
        self.close()

    def forth(self):
        before = b""
        while data := self.near.recv(1 << 20):
            if PUBLISH in before + data:
                self.published = True
                if self.relay.keeps == "publish":
                    self.relay.kept.set()
            if not (self.published and self.relay.keeps == "publish"):
                self.far.sendall(data)
            before = data[1 - len(PUBLISH) :]

    def back(self):
        answer = b""
        while data := self.far.recv(1 << 20):
            if self.published and self.relay.keeps == "answer":
                answer += data
                if VERSION in answer:
                    self.relay.kept.set()
            else:
                self.near.sendall(data)
