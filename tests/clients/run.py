"""Tests the examples with real clients: each example is started as it ships, and clients from other projects connect to it.

    run.py PUSHD REPOSITORY [EXAMPLE...]       all examples, and "default" and "event-streams" (both with config/pushd.toml),
                                               unless some are named

Run it with a Python that has the packages of requirements.txt; README.md lists the other requirements. PYTHON27 names a CPython 2.7
with the packages of requirements-2.7.txt; without it, one of the two draft-76 clients is skipped. The ports of the examples must be
free. Every wait is for a condition, with a deadline. The last line gives the totals; after a failure the exit status is 1.
"""
import ctypes
import hashlib
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager

DEADLINE_S = 60
# How many times a measurement that depends on the speed of the machine is repeated before it counts as failed.
MEASUREMENTS_MAX = 5
POLL_S = 0.02
HERE = pathlib.Path(__file__).resolve().parent
PR_SET_CHILD_SUBREAPER = 36

MODERN = {
    "websockets": [sys.executable, HERE / "client_websockets.py"],
    "ws4py": [sys.executable, HERE / "client_ws4py.py"],
    "ws": ["node", HERE / "client_ws.mjs"],
}
DRAFT76 = {"hybi00": ["perl", HERE / "client_hybi00.pl"]}
if os.environ.get("PYTHON27"):
    DRAFT76["autobahn76"] = [os.environ["PYTHON27"], "-W", "ignore", HERE / "client_autobahn76.py"]
ALL = list(MODERN | DRAFT76)
# The clients of event streams.
STREAMS = {
    "eventsource": ["node", HERE / "client_eventsource.mjs"],
    "httpx-sse": [sys.executable, HERE / "client_httpx_sse.py"],
    "sseclient": [sys.executable, HERE / "client_sseclient.py"],
    "curl": [sys.executable, HERE / "client_curl.py"],
}
PROGRAMS = MODERN | DRAFT76 | STREAMS


# Counting

passed = failed = skipped = 0


@contextmanager
def check(name):
    global passed, failed
    try:
        yield
        passed += 1
        print(f"ok    {name}", flush=True)
    except Exception as error:
        failed += 1
        place = traceback.extract_tb(error.__traceback__)[1].lineno
        print(f"FAIL  {name}: {error} (line {place})", flush=True)


def equal(found, expected, what):
    assert found == expected, f"{what}: expected {expected!r}, found {found!r}"


def until(what, ask, deadline_s=DEADLINE_S):
    """Calls `ask` until it returns a true value, and returns that value."""
    end = time.monotonic() + deadline_s
    while not (answer := ask()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(POLL_S)
    return answer


# The server

class Server:
    """One example, with a copy of the shipped files and its own run directory."""

    def __init__(self, pushd, repository, scratch, config, ports):
        self.pushd, self.ports = pushd, ports
        self.home = pathlib.Path(tempfile.mkdtemp(dir=scratch))
        shutil.copytree(repository / "config", self.home / "config")
        self.config = self.home / "config" / config
        self.rundir = self.home / "run"
        self.rundir.mkdir()
        self.pid = None

    def refuses(self):
        for port in self.ports:
            assert not accepts(port), f"port {port} is taken by something else"

    def start(self):
        """Starts it in the foreground; its output goes to a file."""
        self.refuses()
        with open(self.rundir / "pushd.log", "wb") as log:
            command = [self.pushd, "-n", "-c", self.config, "--rundir", self.rundir]
            self.pid = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid
        for port in self.ports:
            until(f"port {port} accepts", lambda: self.alive() and accepts(port))

    def daemonize(self):
        """Starts it as a daemon, like twistd: the command returns when the daemon serves, and creates pushd.pid and pushd.log."""
        self.refuses()
        subprocess.run([self.pushd, "-c", self.config], cwd=self.rundir, check=True, timeout=DEADLINE_S)
        self.pid = int((self.rundir / "pushd.pid").read_text())
        for port in self.ports:
            assert accepts(port), f"the daemon is ready but port {port} is not"

    def log(self):
        return (self.rundir / "pushd.log").read_text()

    def logs(self, words):
        until(f"the log contains {words!r}", lambda: words in self.log())

    def alive(self):
        assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), f"pushd ended by itself: {self.log()}"
        return True

    def stop(self):
        """Sends SIGINT and expects exit status 0. A daemon is a child of this process, too: see the subreaper below."""
        pid, self.pid = self.pid, None
        os.kill(pid, signal.SIGINT)
        try:
            status = until("an end after SIGINT", lambda: (end := os.waitpid(pid, os.WNOHANG))[0] and end)[1]
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        equal(os.waitstatus_to_exitcode(status), 0, "exit code after SIGINT")
        assert not (self.rundir / "pushd.pid").exists(), "the pidfile is still there"
        for words in ["Log opened", "Received SIGINT, shutting down", "Server Shut Down"]:
            assert words in self.log(), f"the log does not contain {words!r}"


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


# The clients

class Client:
    """A client in another process. It reads orders and writes events, both as lines of JSON."""

    def __init__(self, kind, *arguments):
        self.kind = kind
        command = [*PROGRAMS[kind], *arguments]
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        self.events = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.events.put((time.monotonic(), json.loads(line)))
        self.events.put((time.monotonic(), {"event": "end"}))

    def complaints(self):
        self.errors.seek(0)
        return self.errors.read().decode().strip()[-2000:]

    def do(self, do, **order):
        self.process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self.process.stdin.flush()

    def next(self):
        """The next event, with its time."""
        try:
            return self.events.get(timeout=DEADLINE_S)
        except queue.Empty:
            raise AssertionError(f"{self.kind} had no event for {DEADLINE_S} s {self.complaints()}") from None

    def sees(self, event, **fields):
        """Checks that the next event is this one, so that nothing else has happened before it."""
        _, found = self.next()
        wanted = {"event": event, **fields}
        assert wanted.items() <= found.items(), f"{self.kind}: expected {wanted}, found {found} {self.complaints()}"
        return found

    def next_text(self):
        """The next text. The client may lose its connection and be connected again before it."""
        while (found := self.next()[1])["event"] in ("open", "lost"):
            pass
        equal(found["event"], "text", f"{self.kind}, the event")
        return found["text"]

    def receives(self, text):
        self.sees("text", text=text)

    def receives_among_others(self, test):
        """Waits for a text that passes the test, and ignores other texts before it; returns its time and the text."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            at, found = self.next()
            equal(found["event"], "text", f"{self.kind}, the event")
            if test(found["text"]):
                return at, found["text"]
        raise AssertionError(f"{self.kind} did not receive it within {DEADLINE_S} s")

    def close(self):
        self.do("close")
        self.ended()

    def ended(self, code=None):
        """Checks that the connection was closed properly, and with this code if the protocol of the client has codes."""
        if self.kind == "eventsource" and code:      # it connects again, and does not end
            self.sees("lost")
            return
        found = self.sees("lost" if self.kind in STREAMS and code else "closed")
        if self.kind in STREAMS:
            pass                                     # its end has no code
        elif self.kind in DRAFT76:
            assert found["clean"], f"{self.kind}: not a clean close"
        elif code:
            equal(found["code"], code, f"{self.kind}, close code")
        equal(self.process.wait(DEADLINE_S), 0, f"{self.kind}, exit code")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Trial:
    """A running example, with its clients."""

    def __init__(self, server):
        self.server, self.clients = server, []

    def client(self, kind, *arguments):
        client = Client(kind, *arguments)
        self.clients.append(client)
        return client

    def open(self, kind, *arguments):
        client = self.client(kind, *arguments)
        client.sees("open")
        return client

    def open_all(self, kinds, url):
        clients = [self.client(kind, url) for kind in kinds]
        for client in clients:
            client.sees("open")
        return clients


class Reply:
    """The response that curl received."""

    def __init__(self, *arguments):
        with tempfile.TemporaryDirectory() as place:
            head, body = pathlib.Path(place, "head"), pathlib.Path(place, "body")
            command = ["curl", "-sS", "--max-time", str(DEADLINE_S), "-D", head, "-o", body, "-w", "%{http_code}", *arguments]
            run = subprocess.run(command, capture_output=True, text=True)
            equal(run.returncode, 0, f"curl {arguments[-1]} ({run.stderr.strip()})")
            self.status = int(run.stdout)
            self.body = body.read_bytes() if body.exists() else b""
            lines = head.read_text().strip().split("\n\n")[-1].splitlines()[1:]
            self.fields = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines if ":" in line)}

    def json(self):
        return json.loads(self.body)


def status(expected, *arguments):
    reply = Reply(*arguments)
    equal(reply.status, expected, f"curl {' '.join(map(str, arguments))}")
    return reply


def reached(expected, *arguments):
    """Publishes, and checks the number of subscribers that the message was queued for."""
    answer = status(200, *arguments).json()
    equal(answer["subscribers"], expected, f"subscribers that {arguments[-1]} reached")
    return answer


def page(url, title):
    reply = status(200, url)
    assert f"<title>{title}</title>".encode() in reply.body, f"{url} is not the page titled {title}"
    assert reply.fields["content-type"].startswith("text/html"), reply.fields


# The examples

def server_push(t):
    web = "http://127.0.0.1:8888"
    socket_of = lambda user, component: f"ws://127.0.0.1:8888/ws?userid={user}&compid={component}"
    everyone = [(kind, t.open(kind, socket_of("anna", "desk"))) for kind in MODERN]
    pair = [client for _, client in everyone]
    others = [t.open(kind, socket_of(kind, "desk")) for kind in MODERN]

    with check("server-push: the page"):
        page(f"{web}/", "Server push")
    with check("server-push: a push reaches every socket of its pair"):
        reached(3, f"{web}/push?userid=anna&compid=desk&message=hello")
        for client in pair:
            client.receives("hello")
    with check("server-push: text that curl escapes arrives unchanged"):
        text = "a+b & c=d 100% ünïcødé \U0001f680"
        fields = ["--data-urlencode", f"message={text}", "-d", "userid=anna", "-d", "compid=desk"]
        reached(3, "-G", *fields, f"{web}/push")
        reached(3, *fields, f"{web}/push")
        for client in pair * 2:
            client.receives(text)
    with check("server-push: a push to all reaches all; earlier pushes reached only their pair"):
        reached(6, f"{web}/pushtoall?message=all")
        for client in pair + others:
            client.receives("all")
    with check("server-push: a push to a pair without sockets reaches 0"):
        reached(0, f"{web}/push?userid=nobody&compid=desk&message=x")
        reached(0, f"{web}/push?userid=anna&compid=other&message=x")
    with check("server-push: a value with a slash cannot reach another pair"):
        client = t.open("websockets", socket_of("a%2Fb", "c"))
        reached(0, f"{web}/push?userid=a&compid=b%2Fc&message=x")
        reached(1, f"{web}/push?userid=a%2Fb&compid=c&message=hello")
        client.receives("hello")
        client.close()
    with check("server-push: a missing argument is answered with 400 and its name"):
        for query, missing in [("userid=u&message=m", "compid"), ("compid=c&message=m", "userid"), ("userid=u&compid=c", "message")]:
            assert missing.encode() in status(400, f"{web}/push?{query}").body, f"{missing} is not named"
        status(400, f"{web}/pushtoall")
        for kind in MODERN:
            t.client(kind, "ws://127.0.0.1:8888/ws?userid=u").sees("refused", status=400)
    with check("server-push: another method is answered with 405 and the allowed methods"):
        allow = status(405, "-X", "DELETE", f"{web}/push?userid=u&compid=c&message=m").fields["allow"]
        assert "GET" in allow and "POST" in allow, allow
    with check("server-push: a message from a client is logged, and sent to no client"):
        for client in others:
            client.do("text", text=f"for the log, from {client.kind}")
            t.server.logs(f"for the log, from {client.kind}")
        reached(6, f"{web}/pushtoall?message=afterwards")
        for client in pair + others:
            client.receives("afterwards")
    with check("server-push: a closed socket is no longer counted"):
        push = f"{web}/push?userid=anna&compid=desk&message=still"
        while pair:
            pair.pop().close()
            until(f"{len(pair)} subscribers", lambda: Reply(push).json()["subscribers"] == len(pair))
            reached(len(pair), "-G", "--data-urlencode", f"message=we are {len(pair)}", push.replace("&message=still", ""))
            for client in pair:
                client.receives_among_others(lambda text: text == f"we are {len(pair)}")


def hello_world(t):
    with check("hello-world: the page"):
        page("http://127.0.0.1:8888/", "WebSocket hello world")
    for kind in MODERN:
        with check(f"hello-world: {kind} receives only the greeting, and its messages are logged"):
            client = t.open(kind, "ws://localhost:8888/ws")
            client.receives("Hello World")
            client.do("text", text=f"good morning from {kind}")
            t.server.logs(f"good morning from {kind}")
            client.close()


def echo(t):
    url = "ws://127.0.0.1:8888/ws"
    pattern = lambda size: hashlib.sha256(bytes(range(256)) * (size // 256) + bytes(size % 256)).hexdigest()

    with check("echo: the page"):
        page("http://127.0.0.1:8888/", "Echo")
    with check("echo: the client of the document prints its own message"):
        run = subprocess.run([sys.executable, HERE / "hello_chetan.py"], capture_output=True, text=True, timeout=DEADLINE_S)
        equal(run.stdout, "Received from server: Hello Chetan\nClosed down\n", f"its output ({run.stderr})")
        equal(run.returncode, 0, "exit code")
        t.server.logs("Hello Chetan")
    clients = t.open_all(MODERN, url)
    with check("echo: text is sent back to its sender only"):
        for client in clients:
            for text in [f"mine, says {client.kind}", "", "ünïcødé \U0001f680", "x" * 70_000]:
                client.do("text", text=text)
                client.receives(text)
    with check("echo: binary is sent back as binary"):
        for client in clients:
            for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_003]:
                client.do("binary", bytes=size)
                client.sees("binary", bytes=size, sha256=pattern(size))
    with check("echo: 16 MiB are sent back unchanged"):
        for client in clients:
            client.do("binary", bytes=16 * 1024 * 1024)
            client.sees("binary", bytes=16 * 1024 * 1024, sha256=pattern(16 * 1024 * 1024))
    with check("echo: a ping is answered"):
        for client in clients:
            if client.kind != "ws4py":          # it does not report pongs
                client.do("ping")
                client.sees("pong")
    with check("echo: more than 16 MiB is refused with 1009"):
        client = t.open("websockets", url)
        client.do("binary", bytes=16 * 1024 * 1024 + 1)
        client.ended(1009)
    for client in clients:
        with check(f"echo: {client.kind} closes"):
            client.close()


def techops(t):
    web = "http://127.0.0.1:8000"
    clients = t.open_all(ALL, "ws://127.0.0.1:5000/")

    with check("techops: a second daemon refuses to start and names the first"):
        command = [t.server.pushd, "-c", t.server.config]
        second = subprocess.run(command, cwd=t.server.rundir, capture_output=True, text=True, timeout=DEADLINE_S)
        assert second.returncode != 0, "it started"
        assert f"Another pushd is running, PID {t.server.pid}" in second.stderr, second.stderr
    for sender in clients:
        with check(f"techops: a message from {sender.kind} reaches all clients, including the sender"):
            for text in [f"hello from {sender.kind}", "<b>ünïcødé</b> \U0001f680"]:
                sender.do("text", text=text)
                for client in clients:
                    client.receives(text)
    with check("techops: binary is ignored"):
        for sender in clients[:len(MODERN)]:
            sender.do("binary", bytes=3)
            sender.do("text", text=f"after the bytes of {sender.kind}")
            for client in clients:
                client.receives(f"after the bytes of {sender.kind}")
    for kind in DRAFT76:
        with check(f"techops: a close from {kind} is answered"):
            client = t.open(kind, "ws://127.0.0.1:5000/")
            client.close()
    with check("techops: the page"):
        page(f"{web}/", "WebSocket Broadcast Demo")
    with check("techops: a directory without an index is listed"):
        place = t.server.config.parent / "www" / "techops" / "notes"
        (place / "more").mkdir(parents=True)
        (place / "one two & <three>.txt").write_text("text")
        listing = status(200, f"{web}/notes/")
        assert b"one two &amp; &lt;three&gt;.txt" in listing.body and b"more/" in listing.body, listing.body
        equal(status(200, f"{web}/notes/one%20two%20&%20%3Cthree%3E.txt").body, b"text", "the file listed")
        assert status(301, f"{web}/notes").fields["location"].endswith("/notes/"), "not redirected to the directory"
    with check("techops: HEAD, ranges and conditional requests work"):
        whole = status(200, f"{web}/")
        length = len(whole.body)
        head = status(200, "--head", f"{web}/index.html")
        equal((head.fields["content-length"], head.body[:4]), (str(length), b"HTTP"), "HEAD")
        equal(status(206, "-r", "2-5", f"{web}/").body, whole.body[2:6], "a range")
        status(304, "-H", f"If-None-Match: {whole.fields['etag']}", f"{web}/")
        status(404, f"{web}/nothing-here")
        status(405, "-d", "x", f"{web}/")
    with check("techops: nothing outside the directory is served"):
        for path in ["/../../techops.toml", "/%2e%2e/%2e%2e/techops.toml", "/notes/..%2f..%2f..%2ftechops.toml"]:
            reply = Reply("--path-as-is", f"{web}{path}")
            assert reply.status in (400, 403, 404), f"{path} is answered with {reply.status}"


def tick_trouble(clients):
    """Collects four ticks from each client. Fails if the numbers are not in order; returns what is wrong with their times, or None."""
    seen = [dict() for _ in clients]
    for client, ticks in zip(clients, seen):
        while len(ticks) < 4:
            at, text = client.receives_among_others(lambda text: True)
            assert re.fullmatch(r"tick:\d+", text), f"{client.kind} received {text!r}"
            ticks[int(text[5:])] = at
        numbers = list(ticks)
        equal(numbers, list(range(numbers[0], numbers[0] + 4)), f"{client.kind}, numbers in order of arrival")
        apart = [ticks[n + 1] - ticks[n] for n in numbers[:-1]]
        if not all(0.5 < gap < 2 for gap in apart):
            return f"{client.kind}, seconds between ticks: {apart}"
    common = set.intersection(*map(set, seen))
    if len(common) < 2:
        return f"too few ticks were received by all: {seen}"
    for n in common:
        times = [ticks[n] for ticks in seen]
        if max(times) - min(times) >= 0.5:
            return f"tick {n} came {max(times) - min(times)} s apart"
    return None


def tick(t):
    with check("tick: the page"):
        page("http://127.0.0.1:8888/", "Tick")
    clients = t.open_all(ALL, "ws://127.0.0.1:9876/")
    with check(f"tick: {', '.join(ALL)} receive the same number at the same time, once a second"):
        # If the machine pauses for a moment, one measurement is wrong although the clock is right. So measure again.
        for measurement in range(MEASUREMENTS_MAX):
            trouble = tick_trouble(clients)
            if not trouble:
                break
        assert not trouble, f"{trouble}, after {measurement + 1} measurements"
    for sender in clients:
        with check(f"tick: a message from {sender.kind} reaches all as msg:"):
            text = f"tea at 12:30, says {sender.kind}: ünïcødé"
            sender.do("text", text=text)
            for client in clients:
                client.receives_among_others(lambda received: received == f"msg:{text}")


def streaming(t):
    with check("streaming: the page"):
        page("http://127.0.0.1:8888/", "Streaming")
    clients = t.open_all(MODERN, "ws://127.0.0.1:8888/ws")
    with check("streaming: the output of the command arrives"):
        for client in clients:
            for _ in range(2):
                client.receives_among_others(lambda text: re.fullmatch(r"load \d+\.\d+", text))
    with check("streaming: lines that are appended to the file arrive"):
        with open(t.server.config.parent / "streaming.log", "a") as file:
            file.write("the kettle\nbo")
            file.flush()
            for client in clients:
                client.receives_among_others(lambda text: text == "log the kettle")
            file.write("ils: ünïcødé\n")
        for client in clients:
            client.receives_among_others(lambda text: text == "log boils: ünïcødé")


def default(t):
    web, url = "http://127.0.0.1:8888", "ws://127.0.0.1:8888/ws"
    clients = t.open_all(MODERN, url)
    tea = t.open_all(MODERN, f"{url}?channel=tea")

    with check("default: the page"):
        page(f"{web}/", "pushd live")
    with check("default: a POST reaches the subscribers of its channel, and returns their number"):
        for channel, listeners in [("all", clients), ("tea", tea)]:
            equal(reached(3, "-d", f"for {channel} & more", f"{web}/publish/{channel}")["channel"], channel, "channel")
            for client in listeners:
                client.receives(f"for {channel} & more")
    with check("default: binary is published as binary"):
        reached(3, "-H", "Content-Type: application/octet-stream", "--data-binary", "\x01\x02", f"{web}/publish/tea")
        for client in tea:
            client.sees("binary", bytes=2)
    with check("default: a message from a client is sent to no client"):
        tea[0].do("text", text="nobody hears this")
        reached(3, "-d", "afterwards", f"{web}/publish/tea")
        for client in tea:
            client.receives("afterwards")
    with check("default: an invalid publish is refused with the right status"):
        assert "POST" in status(405, f"{web}/publish/all").fields["allow"], "Allow does not name POST"
        status(404, "-d", "x", f"{web}/publish")
        big = t.server.home / "big"
        big.write_bytes(b"x" * (64 * 1024 + 1))
        status(413, "-H", "Expect:", "--data-binary", f"@{big}", f"{web}/publish/all")
        big.write_bytes(b"\xff\xfe")
        status(400, "--data-binary", f"@{big}", f"{web}/publish/all")
    with check("default: pages of other sites cannot connect or publish"):
        for kind in ["websockets", "ws"]:
            t.client(kind, url, "http://elsewhere.example").sees("refused", status=403)
            t.open(kind, url, web).close()
        status(403, "-H", "Origin: http://elsewhere.example", "-d", "x", f"{web}/publish/all")
    with check("default: a request without an upgrade on the WebSocket path is answered with 426"):
        equal(status(426, f"{web}/ws").fields["upgrade"].lower(), "websocket", "Upgrade")
    with check("default: health"):
        status(200, f"{web}/healthz")
        status(200, f"{web}/readyz")
    with check("default: metrics in Prometheus's format"):
        reply = status(200, f"{web}/metrics")
        assert reply.fields["content-type"].startswith("text/plain; version=0.0.4"), reply.fields["content-type"]
        line = re.compile(r"# (HELP|TYPE) pushd_\w+ .+|pushd_\w+(\{(\w+=\"([^\"\\]|\\.)*\",?)+\})? [-+0-9.eE]+")
        for text in reply.body.decode().splitlines():
            assert line.fullmatch(text), f"not a metric: {text!r}"


@contextmanager
def nginx(home):
    """nginx with its default settings on port 8081 (HTTP/1.0 to the backend, and buffered), and with HTTP/1.1 on port 8082. There it
    answers itself while the backend is stopped, because an EventSource does not connect again after a 502."""
    place = home / "nginx"
    place.mkdir(exist_ok=True)
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    files = "".join(f"    {kind}_temp_path {place}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.getuid() == 0 else ""
    (place / "nginx.conf").write_text(f"""{user}daemon off;
master_process off;
pid {place}/pid;
events {{ }}
http {{
    access_log off;
{files}    server {{
        listen 127.0.0.1:8081;
        location / {{ proxy_pass http://127.0.0.1:8888; }}
    }}
    server {{
        listen 127.0.0.1:8082;
        location / {{
            proxy_pass http://127.0.0.1:8888;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            error_page 502 504 =200 @later;
        }}
        location @later {{
            default_type text/event-stream;
            return 200 "retry: 1000\\n\\n";
        }}
    }}
}}
""")
    for port in [8081, 8082]:
        assert not accepts(port), f"port {port} is taken by something else"
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    process = subprocess.Popen([program, "-e", place / "error.log", "-c", place / "nginx.conf"], stdin=subprocess.DEVNULL)
    try:
        for port in [8081, 8082]:
            until(f"nginx accepts on port {port}", lambda: process.poll() is None and accepts(port))
        yield
    finally:
        process.kill()
        process.wait()


def event_streams(t):
    web = "http://127.0.0.1:8888"
    texts = ["short", "two\nlines", "\n: not a comment\n\nid: 5\n", " a space first", "ünïcødé \U0001f680", "x" * 60_000]
    post = lambda expected, channel, text: reached(expected, "--data-binary", text, f"{web}/publish/{channel}")
    clients = []
    for kind in STREAMS:
        with check(f"event-streams: {kind} receives each message of its channel at once, whatever its text"):
            client = t.open(kind, f"{web}/events?channel={kind}")
            clients.append(client)
            post(0, "all", "for another channel")
            for text in texts:
                post(1, kind, text)
                client.receives(text)
    with check("event-streams: pages of other sites cannot read a stream"):
        status(403, "-H", "Origin: http://elsewhere.example", f"{web}/events")
    with check("event-streams: a client that accepts no event stream is answered with 406"):
        status(406, "-H", "Accept: application/json", f"{web}/events")
    for port, protocol in [(8081, "HTTP/1.0, the default"), (8082, "HTTP/1.1")]:
        with check(f"event-streams: nginx passes on each event at once ({protocol})"), nginx(t.server.home):
            proxied = t.open_all(STREAMS, f"http://127.0.0.1:{port}/events?channel=proxied")
            for text in texts:
                post(4, "proxied", text)
                for client in proxied:
                    client.receives(text)
            for client in proxied:
                client.close()
            until("no subscriber", lambda: Reply("-d", "x", f"{web}/publish/proxied").json()["subscribers"] == 0)
    with check("event-streams: they end with the server, and eventsource connects again to the next one"), nginx(t.server.home):
        again, proxied = clients[0], t.open("eventsource", "http://127.0.0.1:8082/events?channel=proxied")
        # Without a position, it would begin with what is live.
        post(1, "proxied", "before the restart")
        proxied.receives("before the restart")
        t.server.stop()
        for client in clients + [proxied]:
            client.ended(1001)
        # While pushd is stopped, nginx answers: its short streams open, and end at once.
        proxied.sees("open")
        proxied.sees("lost")
        t.server.start()
        # They are connected again some seconds later, and receive what was published meanwhile.
        listeners, numbers = [(again, again.kind), (proxied, "proxied")], [str(number) for number in range(5)]
        for number in numbers:
            for _, channel in listeners:
                status(200, "-d", number, f"{web}/publish/{channel}")
        for client, channel in listeners:
            equal([client.next_text() for _ in numbers], numbers, f"the messages of {channel} after the restart")
            post(1, channel, "the last one")
            client.receives("the last one")
        proxied.close()
    for kind in ["httpx-sse", "sseclient"]:
        with check(f"event-streams: {kind} continues after the last id that it has received"):
            client = t.open(kind, f"{web}/events?channel={kind}")
            equal(post(1, kind, "received")["id"], client.sees("text", text="received")["id"], "the id of the event")
            last = post(1, kind, "received, too")["id"]
            equal(client.sees("text", text="received, too")["id"], last, "the id of the event")
            client.close()
            missed = [str(number) for number in range(5)]
            for text in missed:
                status(200, "-d", text, f"{web}/publish/{kind}")
            client = t.open(kind, f"{web}/events?channel={kind}", last)
            equal([client.next_text() for _ in missed], missed, "what it has missed")
            status(200, "-d", "the last one", f"{web}/publish/{kind}")
            client.receives("the last one")
            client.close()


EXAMPLES = {
    "server-push": (server_push, [8888]),
    "hello-world": (hello_world, [8888]),
    "echo": (echo, [8888]),
    "techops": (techops, [5000, 8000]),
    "tick": (tick, [9876, 8888]),
    "streaming": (streaming, [8888]),
    "default": (default, [8888]),
    "event-streams": (event_streams, [8888]),
}


# The run

def attempt(name, pushd, repository, scratch):
    body, ports = EXAMPLES[name]
    before = failed
    config = "pushd.toml" if name in ("default", "event-streams") else f"examples/{name}.toml"
    server = Server(pushd, repository, scratch, config, ports)
    trial = Trial(server)
    try:
        with check(f"{name}: starts"):
            server.daemonize() if name == "techops" else server.start()
        if failed == before:
            with check(f"{name}: no error in the test itself"):
                body(trial)
        if server.pid:
            with check(f"{name}: SIGINT stops it with 0, and connected clients get a close"):
                here = [client for client in trial.clients if client.process.poll() is None]
                server.stop()
                for client in here:
                    while client.events.qsize() and client.events.queue[0][1]["event"] == "text":
                        client.next()
                    client.ended(1001)
    finally:
        for client in trial.clients:
            client.kill()
        if failed > before:
            print("".join(f"      | {line}\n" for line in server.log().splitlines()[-60:]), end="", flush=True)


def main():
    global skipped
    if len(sys.argv) < 3 or set(sys.argv[3:]) - set(EXAMPLES):
        sys.exit(__doc__)
    # The parent of a daemon has ended. As a subreaper this process becomes the parent, and can read the exit status.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if "autobahn76" not in DRAFT76:
        skipped = 1
        print("SKIPPED  Autobahn 0.9.0 speaking draft-76: PYTHON27 names no CPython 2.7 (Perl's client of that draft still runs)")
    scratch = tempfile.mkdtemp(prefix="pushd-clients-")
    try:
        for name in sys.argv[3:] or EXAMPLES:
            attempt(name, pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve(), scratch)
    finally:
        shutil.rmtree(scratch)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
