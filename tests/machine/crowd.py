"""Many WebSockets that stay open, and a publisher that sends numbers: lost and duplicated messages and closed sessions are counted."""
import http.client
import resource
import selectors
import socket
import threading
import time

from machine import ADDRESS, DEADLINE_S, Broken, equal, holds, until
from websocket import CLOSE, PING, PONG, TEXT, Frames, frame, handshake, upgraded

# The pause between two publications: short enough that many happen during each restart, long enough for a slow machine.
PUBLISH_PAUSE_S = 0.005


class Watcher:
    """One client with a non-blocking socket."""

    def __init__(self, target):
        self.socket = socket.create_connection(ADDRESS, timeout=DEADLINE_S)
        self.socket.sendall(handshake(target))
        self.frames = Frames()
        while not upgraded(self.frames.bytes):
            self.frames.bytes += self.socket.recv(4096) or b"\r\n\r\n"
        self.socket.setblocking(False)
        self.heard = []
        self.end = None

    def read(self):
        """Reads the data that has arrived; returns whether the session is still open."""
        try:
            more = self.socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError as error:
            self.end = str(error)
            return False
        self.frames.bytes += more
        while (taken := self.frames.take()) is not None:
            first, payload = taken
            if first == TEXT:
                self.heard.append(int(payload))
            elif first == PING:
                self.socket.send(frame(PONG, payload))
            elif first == CLOSE:
                self.end = f"close {int.from_bytes(payload[:2], 'big')}"
                return False
        if not more:
            self.end = "the connection ended"
        return bool(more)


class Crowd:
    """`size` watchers on one channel. One thread reads from all of them, another publishes 0, 1, 2… on the channel."""

    def __init__(self, size, channel="crowd"):
        self.watchers = [Watcher(f"/ws?channel={channel}") for _ in range(size)]
        self.target = f"/publish/{channel}"
        self.taken, self.unsure = [], []
        self.refusals = 0
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.read, self.publish)]
        self.done = threading.Event()
        for thread in self.threads:
            thread.start()

    def read(self):
        waiting = selectors.EpollSelector()
        for watcher in self.watchers:
            waiting.register(watcher.socket, selectors.EVENT_READ, watcher)
        while not self.done.is_set():
            for key, _ in waiting.select(timeout=0.1):
                if not key.data.read():
                    waiting.unregister(key.fileobj)

    def publish(self):
        """Publishes each number until it is accepted. If no response came, it is unknown whether it was published: it may arrive once."""
        number = 0
        while not self.stop.is_set():
            sent = False
            connection = http.client.HTTPConnection(*ADDRESS, timeout=DEADLINE_S)
            try:
                connection.connect()
                sent = True
                connection.request("POST", self.target, str(number).encode())
                if connection.getresponse().status == 200:
                    self.taken.append(number)
                    number += 1
                else:
                    self.refusals += 1
            except (OSError, http.client.HTTPException):
                self.refusals += 1
                if sent:
                    self.unsure.append(number)
                    number += 1
            finally:
                connection.close()
            # The pause of an ordinary publisher. The deadline is that of the scene.
            time.sleep(PUBLISH_PAUSE_S)

    def published(self):
        return len(self.taken)

    def goes_on(self, by=20):
        """Waits until `by` more numbers were published and accepted."""
        before = self.published()
        until("publications are taken", lambda: self.published() >= before + by or self.closed())
        holds(not self.closed(), f"{len(self.closed())} of {len(self.watchers)} were closed: {self.closed()[:1]}")

    def closed(self):
        return [watcher.end for watcher in self.watchers if watcher.end]

    def give_up(self):
        self.stop.set()
        self.done.set()

    def settle(self):
        """Stops publishing, waits until all watchers have received the last number, checks all deliveries, and returns a summary."""
        self.stop.set()
        self.threads[1].join(DEADLINE_S)
        try:
            last = self.taken[-1]
            until("all watchers receive the last number",
                  lambda: all(watcher.end or last <= watcher.heard[-1] for watcher in self.watchers))
        finally:
            self.done.set()
            self.threads[0].join(DEADLINE_S)
            for watcher in self.watchers:
                watcher.socket.close()
        taken, known = set(self.taken), set(self.taken) | set(self.unsure)
        lost = sum(len(taken.difference(watcher.heard)) for watcher in self.watchers)
        duplicated = sum(len(watcher.heard) - len(set(watcher.heard)) for watcher in self.watchers)
        strange = sum(len(set(watcher.heard) - known) for watcher in self.watchers)
        disordered = sum(watcher.heard != sorted(watcher.heard) for watcher in self.watchers)
        equal({"lost": lost, "duplicated": duplicated, "strange": strange, "disordered": disordered, "closed": len(self.closed())},
              dict.fromkeys(("lost", "duplicated", "strange", "disordered", "closed"), 0), "of all deliveries")
        return (f"{len(self.watchers)} clients, {len(taken)} numbers each, {self.refusals} publications tried again: "
                f"none lost, none duplicated, none closed")


def unnoticed(machine, verb, size=1000, times=10):
    """Checks that `size` clients are not affected when the service is reloaded or restarted `times` times."""
    machine.fresh()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pids = {machine.main_pid()}
    crowd = Crowd(size)
    try:
        for _ in range(times):
            crowd.goes_on()
            machine.systemctl(verb)
            crowd.goes_on()
            pids.add(machine.main_pid())
    except Broken:
        crowd.give_up()
        raise
    print(f"      {crowd.settle()}", flush=True)
    equal(len(pids), 1 if verb == "reload" else times + 1, "processes")


def unnoticed_reloads(machine):
    unnoticed(machine, "reload")


def unnoticed_restarts(machine):
    """More restarts within a minute than systemd allows by default."""
    unnoticed(machine, "restart", times=15)


SCENES = [
    ("a thousand clients are not affected by ten reloads", unnoticed_reloads),
    ("a thousand clients are not affected by fifteen restarts", unnoticed_restarts),
]
