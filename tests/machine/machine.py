"""The machine under test, as an administrator uses it: commands, the service, the journal, HTTP requests.

The commands run in the machine. This program itself runs only in the machine's network, so its clients are local to the machine.
"""
import http.client
import json
import pathlib
import re
import subprocess
import time
from contextlib import contextmanager

# A wait that takes longer has failed. This is enough for slow machines, too.
DEADLINE_S = 120
POLL_S = 0.05
UNIT = "pushd.service"
ADDRESS = ("127.0.0.1", 8888)
CONFIG = pathlib.PurePosixPath("/etc/pushd/config.toml")
CONF_D = CONFIG.parent / "conf.d"
# A drop-in of the unit, below /run so that it does not survive a boot.
DROP_IN = f"/run/systemd/system/{UNIT}.d/scene.conf"
# A socket unit in the same place.
SOCKET = "/run/systemd/system/pushd.socket"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


class Broken(AssertionError):
    """A check has failed."""


def equal(found, expected, what):
    if found != expected:
        raise Broken(f"{what}: expected {expected!r}, found {found!r}")


def holds(truth, what):
    if not truth:
        raise Broken(what)


def until(what, ask, deadline_s=DEADLINE_S):
    """Calls `ask` until it returns a true value, and returns that value."""
    end = time.monotonic() + deadline_s
    while not (answer := ask()):
        holds(time.monotonic() < end, f"not within {deadline_s} s: {what}")
        time.sleep(POLL_S)
    return answer


class Machine:
    """A booted Debian: `init` is the number of its first process, `root` the directory of its files."""

    def __init__(self, init, root):
        self.enter = ["nsenter", "--target", str(init), "--all", "--"]
        self.init = init
        self.root = pathlib.Path(root)
        self.packaged = None

    # Commands

    def popen(self, *command, **options):
        return subprocess.Popen([*self.enter, *map(str, command)], env=ENVIRONMENT, text=True, **options)

    def try_run(self, *command):
        """Runs a command to its end; returns its exit status and its output."""
        ran = subprocess.run([*self.enter, *map(str, command)], env=ENVIRONMENT, text=True, timeout=DEADLINE_S,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return ran.returncode, ran.stdout

    def run(self, *command):
        """Runs a command that must succeed; returns its output."""
        code, said = self.try_run(*command)
        holds(code == 0, f"`{' '.join(map(str, command))}` exits with {code}: {said}")
        return said

    def fails(self, *command):
        """Runs a command that must fail; returns its output."""
        code, said = self.try_run(*command)
        holds(code != 0, f"`{' '.join(map(str, command))}` succeeds: {said}")
        return said

    def kill(self, name, pid):
        """Sends a signal. With the builtin of a shell, because a small Debian has no program `kill`."""
        self.run("sh", "-c", f"kill -s {name} {pid}")

    # Files

    def path(self, name):
        return self.root / str(name).lstrip("/")

    def read(self, name):
        return self.run("cat", name)

    def write(self, name, text):
        """Writes a file, and creates its directory. By a command in the machine, because its /run is not below `root`."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"', "sh", name, text)

    def configure(self, old, new):
        """Writes the packaged configuration with one replacement."""
        holds(old in self.packaged, f"the packaged configuration has no {old}")
        self.write(CONFIG, self.packaged.replace(old, new, 1))

    # The service

    def systemctl(self, *words):
        return self.run("systemctl", *words, UNIT)

    def show(self, name):
        return self.run("systemctl", "show", "--value", f"--property={name}", UNIT).strip()

    def state(self):
        return f"{self.show('ActiveState')}/{self.show('SubState')}"

    def main_pid(self):
        return int(self.show("MainPID"))

    def failed_units(self):
        return set(self.run("systemctl", "--failed", "--plain", "--no-legend", "--full").splitlines())

    def restarts(self):
        return int(self.show("NRestarts"))

    def drop_in(self, lines):
        self.write(DROP_IN, f"[Service]\n{lines}\n")
        self.run("systemctl", "daemon-reload")

    def fresh(self):
        """Restores the service as installed, whatever the scene before has changed: its files, without drop-ins, started."""
        self.try_run("systemctl", "stop", "pushd.socket")
        self.run("rm", "-rf", pathlib.PurePosixPath(DROP_IN).parent, SOCKET, CONF_D)
        self.write(CONFIG, self.packaged)
        self.run("systemctl", "daemon-reload")
        self.systemctl("stop")
        self.forgive()
        self.run("sh", "-c", "rm -rf /var/log/pushd/*")
        self.systemctl("start")

    def forgive(self):
        """Resets the counter of starts, for which systemd has a limit. This fails if systemd has no state of the unit, which is fine."""
        self.try_run("systemctl", "reset-failed", UNIT)

    def comes_back(self, pid):
        """Waits until systemd has started the service again, and it serves."""
        until("another process", lambda: self.main_pid() not in (0, pid))
        until("the service runs", lambda: self.state() == "active/running")
        self.serves()

    # The journal

    def cursor(self):
        self.run("journalctl", "--sync")
        said = self.run("journalctl", "--quiet", "--lines=1", "--show-cursor", "--output=cat")
        return re.search(r"-- cursor: (\S+)", said).group(1)

    def journal(self, cursor):
        """The entries of the service in the journal since `cursor`, oldest first."""
        self.run("journalctl", "--sync")
        said = self.run("journalctl", "--quiet", f"--unit={UNIT}", f"--after-cursor={cursor}", "--output=json")
        return [json.loads(line) for line in said.splitlines()]

    def told(self, cursor, pattern):
        """Waits until the journal has an entry that matches; returns the entry."""
        def look():
            return next((entry for entry in self.journal(cursor) if re.search(pattern, entry["MESSAGE"])), None)
        return until(f"/{pattern}/ in the journal", look)

    def tail(self, cursor, lines=80):
        """The end of the whole journal since `cursor`, in readable form."""
        return self.try_run("journalctl", "--no-pager", "--output=short-precise", f"--lines={lines}", f"--after-cursor={cursor}")[1]

    # What it serves

    def ask(self, method, target, body=None):
        """Sends one request on its own connection, without a retry; returns the status and the body."""
        connection = http.client.HTTPConnection(*ADDRESS, timeout=DEADLINE_S)
        try:
            connection.request(method, target, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def serves(self):
        equal(self.ask("GET", "/healthz"), (200, "ok\n"), "/healthz")

    def publish(self, message, target="/publish/all"):
        """Publishes; returns the number of subscribers that the message was queued for."""
        status, body = self.ask("POST", target, message.encode())
        equal(status, 200, f"{target}: {body}")
        return json.loads(body)["subscribers"]

    @contextmanager
    def running(self, *command):
        """Starts a command that runs until the end of the block; its output can be read."""
        with self.popen(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                yield process
            finally:
                process.kill()
