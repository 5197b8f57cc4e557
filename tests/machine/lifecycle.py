"""Start, reload, stop, and recovery from a crash."""
import re
import socket
import time

from machine import ADDRESS, CONF_D, CONFIG, DEADLINE_S, SOCKET, equal, holds, until
from websocket import WebSocket

# A line of the packaged configuration after which a route can be inserted, and such a route.
ROUTES = '"/healthz" = { health = true }\n'
ANOTHER_ROUTE = '"/say/{channel}" = { publish = "push", channel = "{channel}" }\n'


def mistaken(machine):
    """Makes a mistake in the configuration; returns its place as messages must name it."""
    machine.configure(ROUTES, ROUTES + '"/say" = { publish = "pusch", channel = "all" }\n')
    lines = machine.read(CONFIG).splitlines()
    number, line = next((number, line) for number, line in enumerate(lines, 1) if '"pusch"' in line)
    return f"{CONFIG}:{number}:{line.index(chr(34) + 'pusch') + 1}"


def starts(machine):
    machine.fresh()
    for _ in range(4):
        machine.systemctl("stop")
        equal(machine.state(), "inactive/dead", "stopped")
        machine.systemctl("start")
        # Tried only once: when `start` returns, the service must already serve.
        machine.serves()
        equal(machine.state(), "active/running", "started")


def status_counts(machine):
    machine.fresh()
    with WebSocket("/ws"), WebSocket("/ws"), WebSocket("/ws?channel=other"):
        until("the status counts three", lambda: 'Status: "3 connections, 3 sessions; 0 publications, 0 deliveries"'
              in machine.run("systemctl", "status", "--no-pager", "pushd"))
        equal(machine.publish("counted"), 2, "subscribers")
        until("the status counts what was published",
              lambda: machine.show("StatusText").endswith("; 1 publications, 2 deliveries"))
    until("the status counts no connections", lambda: machine.show("StatusText").startswith("0 connections, 0 sessions; "))


def reloads(machine):
    machine.fresh()
    pid = machine.main_pid()
    with WebSocket() as client:
        equal(machine.ask("POST", "/say/all", "x")[0], 404, "before the reload")
        machine.configure(ROUTES, ROUTES + ANOTHER_ROUTE)
        machine.systemctl("reload")
        # Tried only once: when `reload` returns, the new configuration must be in use.
        equal(machine.ask("POST", "/say/all", "by the new route")[0], 200, "after the reload")
        client.expect_text("by the new route")
        equal(machine.publish("by the old one"), 1, "subscribers")
        client.expect_text("by the old one")
    equal((machine.main_pid(), machine.restarts()), (pid, 0), "the process and its restarts")


def refuses_a_bad_reload(machine):
    machine.fresh()
    pid, cursor = machine.main_pid(), machine.cursor()
    with WebSocket() as client:
        place = mistaken(machine)
        machine.fails("systemctl", "reload", "pushd")
        machine.told(cursor, re.escape(place))
        machine.told(cursor, "did you mean `push`")
        # A reload by a bare signal is reported in the log, at level error.
        machine.kill("HUP", pid)
        entry = machine.told(cursor, "Reload refused, nothing changed")
        equal(entry["PRIORITY"], "3", "the priority of a refused reload")
        equal(machine.publish("as before"), 1, "subscribers")
        client.expect_text("as before")
    equal((machine.state(), machine.main_pid(), machine.restarts()), ("active/running", pid, 0), "the service")


def reload_tells_what_pushd_finds(machine):
    """A mistake that is not in the file: another program uses the port of a new server."""
    machine.fresh()
    pid = machine.main_pid()
    with WebSocket() as client, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        machine.write(CONF_D / "second.toml",
                      f'[server.second]\nlisten = "127.0.0.1:{port}"\nroutes."/healthz" = {{ health = true }}\n')
        cursor = machine.cursor()
        machine.fails("systemctl", "reload", "pushd")
        machine.told(cursor, rf"pushctl: pushd, PID {pid} \(/run/pushd/pushd.pid\), has refused it, nothing has changed: cannot listen on 127.0.0.1:{port}")
        code, said = machine.try_run("pushctl", "reload")
        equal(code, 69, said)
        holds(f"cannot listen on 127.0.0.1:{port}: another program uses this port" in said, said)
        taken.close()
        machine.systemctl("reload")
        equal(machine.publish("by the new file"), 1, "subscribers")
        client.expect_text("by the new file")
    equal((machine.state(), machine.main_pid(), machine.restarts()), ("active/running", pid, 0), "the service")


def ends_by_a_signal(machine):
    for name in ("INT", "TERM"):
        machine.fresh()
        pid, cursor = machine.main_pid(), machine.cursor()
        with WebSocket() as client:
            machine.kill(name, pid)
            client.expect_close(1001)
        # The state must not become `auto-restart`: systemd decides about a restart when the process ends.
        until("the end", lambda: machine.state() == "inactive/dead")
        machine.told(cursor, f"Received SIG{name}, shutting down")
        machine.told(cursor, "Server Shut Down")
        equal((machine.show("ExecMainCode"), machine.show("ExecMainStatus")), ("1", "0"), "how it ended: exited, with")
        equal((machine.show("Result"), machine.restarts()), ("success", 0), "the service")


def restarts_at_will(machine):
    machine.fresh()
    pid = machine.main_pid()
    with WebSocket() as client:
        machine.systemctl("restart")
        equal(machine.ask("POST", "/publish/all", "still here?")[0], 200, "a publication")
        client.expect_text("still here?")
    holds(machine.main_pid() != pid, "it is the same process")
    equal((machine.state(), machine.restarts()), ("active/running", 0), "the service")


def restarts_past_a_half_sent_request(machine):
    """A request whose header is never finished does not count as a request in progress, so the restart does not wait for it."""
    machine.fresh()
    with WebSocket() as client, socket.create_connection(ADDRESS, timeout=DEADLINE_S) as half:
        half.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
        # When this request on another connection is answered, the unfinished one has been read.
        machine.serves()
        began = time.monotonic()
        machine.systemctl("restart")
        took = time.monotonic() - began
        equal(machine.publish("still here?"), 1, "subscribers")
        client.expect_text("still here?")
        holds(took < 2, f"the restart took {took:.1f} s")


def stops_past_a_half_sent_request(machine):
    machine.fresh()
    with socket.create_connection(ADDRESS, timeout=DEADLINE_S) as half:
        half.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
        machine.serves()
        began = time.monotonic()
        machine.systemctl("stop")
        took = time.monotonic() - began
        holds(took < 2, f"the stop took {took:.1f} s")


def survives_a_crash(machine):
    machine.fresh()
    pid = machine.main_pid()
    cursor = machine.cursor()

    def dies():
        # More than once: Rust's runtime handles the first signal, because it could be a stack overflow, and then restores the default.
        machine.try_run("sh", "-c", f"kill -s SEGV {pid}")
        return machine.main_pid() != pid

    until("the end of the process", dies)
    machine.told(cursor, r"Main process exited, code=(killed|dumped), status=11/SEGV")
    machine.comes_back(pid)
    equal(machine.restarts(), 1, "restarts")


def is_watched(machine):
    machine.fresh()
    equal(machine.show("WatchdogUSec"), "30s", "the watchdog of the unit as it ships")
    # pushd notifies the watchdog every 2 s.
    machine.drop_in("WatchdogSec=8s")
    machine.systemctl("restart")
    pid, cursor = machine.main_pid(), machine.cursor()
    machine.kill("STOP", pid)
    machine.told(cursor, "Watchdog timeout")
    machine.comes_back(pid)
    equal(machine.restarts(), 1, "restarts")


def bad_file_is_not_tried_again(machine):
    machine.fresh()
    machine.systemctl("stop")
    place, cursor = mistaken(machine), machine.cursor()
    machine.fails("systemctl", "start", "pushd")
    equal((machine.state(), machine.restarts()), ("failed/failed", 0), "the service")
    equal((machine.show("Result"), machine.show("ExecMainStatus")), ("exit-code", "78"), "how it ended")
    equal(machine.told(cursor, re.escape(place))["PRIORITY"], "3", "the priority of the error")


def taken_port_is_tried_again(machine):
    machine.fresh()
    machine.systemctl("stop")
    cursor = machine.cursor()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(ADDRESS)
        taken.listen()
        machine.fails("systemctl", "start", "pushd")
        machine.told(cursor, "cannot listen on 127.0.0.1:8888: another program uses this port")
        until("another try", lambda: machine.restarts() > 0)
        # There is no limit on the number of starts, because systemd would then drop the clients that it keeps.
        equal((machine.show("StartLimitIntervalUSec"), machine.show("RestartUSec")), ("0", "2s"), "the limit, and the pause")
    until("it serves once the port is free", lambda: machine.state() == "active/running")
    machine.serves()


def waits_for_the_grace(machine):
    machine.fresh()
    said = machine.run("pushctl", "config", "show")
    grace = int(re.search(r'^grace = "(\d+)s"', said, re.M).group(1))
    stop = re.fullmatch(r"(\d+)s", machine.show("TimeoutStopUSec"))
    holds(stop and int(stop.group(1)) > grace, f"TimeoutStopSec is {machine.show('TimeoutStopUSec')}, grace {grace}s")
    # pushd waits for a client that does not answer the close, and then cuts it off itself; systemd does not have to.
    machine.write(CONF_D / "grace.toml", '[daemon]\ngrace = "2s"\n')
    machine.systemctl("restart")
    cursor, client = machine.cursor(), WebSocket()
    began = time.monotonic()
    machine.systemctl("stop")
    holds(time.monotonic() - began >= 2, "the grace was not kept")
    client.socket.close()
    machine.told(cursor, "1 connections? did not end within the grace")
    equal((machine.show("Result"), machine.show("ExecMainStatus")), ("success", "0"), "how it ended")


def is_activated(machine):
    machine.fresh()
    machine.systemctl("stop")
    machine.write(CONF_D / "socket.toml", '[server.main]\nlisten = "systemd:front"\n')
    machine.write(SOCKET, "[Socket]\nListenStream=%s:%d\nFileDescriptorName=front\n" % ADDRESS)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "pushd.socket")
    equal(machine.state(), "inactive/dead", "before the first request")
    machine.serves()
    equal(machine.state(), "active/running", "after it")
    # The socket belongs to systemd: clients that connect while pushd restarts wait, and are not refused.
    restart = machine.popen("systemctl", "restart", "pushd")
    answers = 0
    while restart.poll() is None or answers < 10:
        try:
            machine.serves()
            answers += 1
        except ConnectionResetError:
            # The old process accepted this connection and ended before it received the request.
            pass
    equal(restart.returncode, 0, "the restart")


SCENES = [
    ("start returns when the service serves", starts),
    ("status counts connections, sessions, publications and deliveries", status_counts),
    ("a reload takes effect at once and keeps a connected client", reloads),
    ("a reload with a mistake fails with its place in the file, and the old configuration stays", refuses_a_bad_reload),
    ("a reload that pushd refuses fails with the reason", reload_tells_what_pushd_finds),
    ("SIGINT and SIGTERM stop it cleanly, and it is not started again", ends_by_a_signal),
    ("a restart keeps a connected client", restarts_at_will),
    ("a restart does not wait for an unfinished request", restarts_past_a_half_sent_request),
    ("a stop does not wait for an unfinished request", stops_past_a_half_sent_request),
    ("after a crash it is started again", survives_a_crash),
    ("the watchdog kills a process that hangs, and it is started again", is_watched),
    ("a start with a mistake in the file is not tried again", bad_file_is_not_tried_again),
    ("a start on a taken port is tried again until the port is free", taken_port_is_tried_again),
    ("a socket unit starts it, and keeps clients that connect during a restart", is_activated),
    ("a stop waits for the grace, and systemd waits longer", waits_for_the_grace),
]
