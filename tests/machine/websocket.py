"""A small WebSocket client: it handles text, ping and close, because these tests use nothing else."""
import base64
import os
import socket
import struct

from machine import ADDRESS, DEADLINE_S, equal, holds

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A


def handshake(target):
    key = base64.b64encode(os.urandom(16)).decode()
    host = "%s:%d" % ADDRESS
    return (f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()


def frame(first, payload):
    """A client's frame: masked, with zeros, and shorter than 126 bytes."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


class Frames:
    """Splits the received bytes into frames."""

    def __init__(self):
        self.bytes = bytearray()

    def take(self):
        """The next complete frame as its first byte and its payload, or None."""
        have = self.bytes
        if len(have) < 2:
            return None
        length, begin = have[1], 2
        if length == 126:
            if len(have) < 4:
                return None
            length, begin = struct.unpack_from("!H", have, 2)[0], 4
        holds(length < 65536 and begin <= 4 and have[1] != 127, "an unexpected kind of frame")
        if len(have) < begin + length:
            return None
        taken = have[0], bytes(have[begin:begin + length])
        del have[:begin + length]
        return taken


def upgraded(have):
    """Removes the response to the handshake from `have` if it is complete; returns whether it was."""
    end = have.find(b"\r\n\r\n")
    if end < 0:
        return False
    holds(have.startswith(b"HTTP/1.1 101 "), f"refused: {bytes(have[:end])!r}")
    del have[:end + 4]
    return True


class WebSocket:
    """One session with a blocking socket."""

    def __init__(self, target="/ws"):
        self.socket = socket.create_connection(ADDRESS, timeout=DEADLINE_S)
        self.frames = Frames()
        self.socket.sendall(handshake(target))
        while not upgraded(self.frames.bytes):
            self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def receive(self):
        more = self.socket.recv(65536)
        holds(more, "the connection ended")
        self.frames.bytes += more

    def next(self):
        """The next frame that is no ping; pings are answered."""
        while True:
            while (taken := self.frames.take()) is None:
                self.receive()
            if taken[0] != PING:
                return taken
            self.socket.sendall(frame(PONG, taken[1]))

    def text(self, text):
        self.socket.sendall(frame(TEXT, text.encode()))

    def expect_text(self, text):
        equal(self.next(), (TEXT, text.encode()), "the next frame")

    def expect_close(self, code):
        """Checks that the next frame is a close with this code, answers it, and checks that the connection ends."""
        first, payload = self.next()
        equal((first, struct.unpack("!H", payload[:2])[0]), (CLOSE, code), "the close")
        self.socket.sendall(frame(CLOSE, payload[:2]))
        equal(self.socket.recv(1), b"", "after the close")
