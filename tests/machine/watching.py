"""Tools of the operator: pushctl, the journal, a log file that is rotated, the security report of systemd."""
import re
import threading

from machine import CONF_D, DEADLINE_S, equal, holds, until
from websocket import WebSocket

LOG = "/var/log/pushd/pushd.log"
LOG_IN_A_FILE = f"""
[log]
file = "{LOG}"
rotate = false
[server.main.routes]
"/say" = {{ websocket = "push", on_message = "echo", log = "messages" }}
"""


def pushctl(machine):
    machine.fresh()
    url = "ws://127.0.0.1:8888/ws"
    with machine.running("pushctl", "subscribe", "--count=2", "--timeout=60s", url) as subscriber:
        until("the subscriber is there", lambda: machine.publish("is anybody there?") == 1)
        published = machine.run("pushctl", "publish", "all", "from a terminal").strip()
        holds(published.startswith('{"channel":"all","subscribers":1,"id":"'), published)
        equal(subscriber.communicate(timeout=DEADLINE_S)[0].splitlines(),
              ["opened", "is anybody there?", "from a terminal", "closed 1000"], "the output of subscribe")
        equal(subscriber.returncode, 0, "the exit status of subscribe")
    said = machine.run("pushctl", "status")
    holds(said.startswith(f"pushd is running, PID {machine.main_pid()} (/run/pushd/pushd.pid)\n"), said)
    machine.run("pushctl", "reload")
    machine.run("pushctl", "stop")
    until("the end", lambda: machine.state() == "inactive/dead")
    equal(machine.show("Result"), "success", "the service")
    machine.fails("pushctl", "status")


def journal_form(machine):
    cursor = machine.cursor()
    machine.fresh()
    machine.told(cursor, "Listening on 127.0.0.1:8888")
    entries = [entry for entry in machine.journal(cursor) if entry["_PID"] == str(machine.main_pid())]
    holds(len(entries) >= 3, f"{len(entries)} entries")
    for entry in entries:
        equal((entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"], entry["_COMM"]), ("pushd", "6", "pushd"), entry["MESSAGE"])
        # One event per line, without the time, because the journal adds it.
        holds(re.fullmatch(r"\[[a-z]+#info\] \S.*", entry["MESSAGE"]), entry["MESSAGE"])
    warned = machine.run("journalctl", "--quiet", "--unit=pushd", f"--after-cursor={cursor}", "--priority=warning", "--output=cat")
    equal(warned, "", "warnings of a start")


def logrotate(machine):
    machine.fresh()
    machine.write(CONF_D / "log.toml", LOG_IN_A_FILE)
    machine.systemctl("restart")
    said, rotated = [], threading.Event()

    def rotate():
        for _ in range(3):
            machine.run("logrotate", "--force", "/etc/logrotate.d/pushd")
            # pushd creates the new file a moment after the signal.
            until("a new file", lambda: machine.try_run("test", "-s", LOG)[0] == 0)
        rotated.set()

    with WebSocket("/say") as client:
        rotation = threading.Thread(target=rotate, daemon=True)
        rotation.start()
        # Messages before, during and after the rotations.
        while not rotated.is_set() or len(said) < 100:
            said.append(f"message-{len(said):06}")
            client.text(said[-1])
            client.expect_text(said[-1])
            holds(rotation.is_alive() or rotated.is_set(), "logrotate failed")
        client.text("the last")
        client.expect_text("the last")
        until("the new file is written to", lambda: "the last" in machine.read(LOG))
    # A rotated file is compressed at the next rotation (delaycompress).
    text = machine.run("sh", "-c", f"cat {LOG} {LOG}.1 && zcat {LOG}.*.gz")
    found = sorted(re.findall(r"message-\d{6}", text))
    equal(found, said, "messages in the log")
    holds(text.count("Log opened") >= 3, "not every file has a line that it was opened")
    modes = machine.run("sh", "-c", f"stat -c %a {LOG} {LOG}.1").split()
    equal(modes, ["640", "640"], "modes")


def is_confined(machine):
    machine.fresh()
    said = machine.run("systemd-analyze", "security", "--no-pager", "--threshold=12", "pushd.service")
    equal(float(re.search(r"exposure level for pushd.service: ([\d.]+)", said).group(1)) <= 1.2, True, "1.2 at most")
    # Also check the running process in /proc.
    status = machine.read(f"/proc/{machine.main_pid()}/status")
    for line in (r"CapEff:\t0+$", r"NoNewPrivs:\t1$", r"Seccomp:\t2$"):
        holds(re.search(f"^{line}", status, re.M), f"{line} in {status}")
    holds(not re.search(r"^Uid:\t0\t", status, re.M), "it runs as root")


SCENES = [
    ("pushctl publishes, subscribes, shows the status, reloads and stops", pushctl),
    ("each line in the journal has a name, a priority and one time", journal_form),
    ("logrotate loses no lines", logrotate),
    ("the process is confined as defined by the unit", is_confined),
]
