"""Variants of the service: with static pages, on low ports, on sockets that systemd opens."""
import http.client
import re
from pathlib import PurePosixPath

from machine import CONF_D, DEADLINE_S, equal, holds

EXAMPLES = "/usr/share/doc/pushd/examples/systemd"
LOW_PORT = 80
# A directory of pages that the unit hides.
HIDDEN = PurePosixPath("/home", "web")
DROP_INS = "/run/systemd/system/pushd.service.d"


def ask_low(target):
    """Sends one request to the low port; returns the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", LOW_PORT, timeout=DEADLINE_S)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def serves_pages(machine):
    """Under all restrictions of the unit: the packaged pages, and pages that only the group of the service can read."""
    machine.fresh()
    machine.run("sh", "-c", "install -d -m 750 -g pushd /srv/pages && echo private >/srv/pages/private.txt &&"
                            "chgrp pushd /srv/pages/private.txt && chmod 640 /srv/pages/private.txt &&"
                            "ln -s /etc/passwd /srv/pages/outside.txt")
    machine.write(CONF_D / "pages.toml", '[server.main.routes]\n"/start" = { static = "/usr/share/pushd/www" }\n'
                                         '"/pages" = { static = "/srv/pages", listing = true }\n')
    machine.systemctl("restart")
    equal(machine.ask("GET", "/start/"), machine.ask("GET", "/"), "the built-in page as a file")
    equal(machine.ask("GET", "/pages/private.txt"), (200, "private\n"), "a page that belongs to the group")
    equal(machine.ask("GET", "/pages/outside.txt")[0], 404, "a link out of the directory")
    status, listing = machine.ask("GET", "/pages/")
    holds(status == 200 and "private.txt" in listing, f"the listing: {status} {listing}")
    machine.run("rm", "-r", "/srv/pages")


def binds_low_ports(machine):
    machine.fresh()
    machine.write(CONF_D / "low.toml", f'[server.main]\nlisten = "127.0.0.1:{LOW_PORT}"\n')
    machine.fails("systemctl", "restart", "pushd")
    machine.run("install", "-D", "-m", "644", f"{EXAMPLES}/low-ports.conf", "-t", DROP_INS)
    machine.run("systemctl", "daemon-reload")
    machine.systemctl("restart")
    equal(ask_low("/healthz")[0], 200, "on the low port")


def is_switched(machine):
    """Switches as described at the beginning of the example, and back."""
    machine.fresh()
    machine.run("install", "-D", "-m", "644", f"{EXAMPLES}/socket.toml", "-t", CONF_D)
    machine.run("systemctl", "disable", "--now", "pushd.service")
    machine.run("systemctl", "enable", "--now", "pushd-socket.service")
    try:
        equal(machine.state(), "inactive/dead", "the usual service")
        equal(ask_low("/healthz")[0], 200, "through the socket")
        machine.run("pushctl", "status")
        machine.run("systemctl", "reload", "pushd-socket.service")
        pid = machine.run("systemctl", "show", "--value", "--property=MainPID", "pushd-socket.service").strip()
        users = {machine.run("stat", "-c", "%U", f"/proc/{pid}").strip(), machine.run("stat", "-c", "%U", "/run/pushd").strip()}
        equal(users, {"pushd"}, "the owners")
        network = machine.run("cat", f"/proc/{pid}/net/dev").splitlines()[2:]
        equal([line.split(":")[0].strip() for line in network], ["lo"], "its network")
        # More often within a minute than systemd allows by default.
        for _ in range(11):
            machine.run("systemctl", "restart", "pushd-socket.service")
        equal(ask_low("/healthz")[0], 200, "after many restarts")
        # Only the socket is left: the next connection starts the service again.
        machine.run("systemctl", "stop", "pushd-socket.service")
        equal(ask_low("/healthz")[0], 200, "by the first connection")
    finally:
        machine.run("rm", CONF_D / "socket.toml")
        machine.run("systemctl", "disable", "--now", "pushd-socket.service", "pushd-socket.socket")
        machine.run("systemctl", "enable", "--now", "pushd.service")
    machine.serves()


def is_checked_as_it_runs(machine):
    """Obstacles that root has not, but the service has: a hidden directory, one without permission for its user, a low port."""
    machine.fresh()
    pid = machine.main_pid()
    machine.run("sh", "-c", f"install -d -m 755 {HIDDEN} && install -d -m 700 /srv/private/www")
    routes = '[server.main.routes]\n"/pages" = { static = "%s" }\n'
    for text, reason in ((routes % HIDDEN, "ProtectHome=yes"),
                         ('[server.low]\nlisten = "127.0.0.1:81"\nroutes."/" = { health = true }\n', "not permitted")):
        machine.write(CONF_D / "pages.toml", text)
        for command in ("check", ), ("check", "--unit", "pushd.service"):
            said = machine.fails("pushctl", *command)
            holds("pushd.service could not be started:" in said and reason in said, f"{reason!r} in {said}")
        # And the service really cannot start.
        machine.fails("systemctl", "restart", "pushd")
    # Here the service can start but cannot serve the pages; the check reports this, too.
    machine.write(CONF_D / "pages.toml", routes % "/srv/private/www")
    said = machine.run("pushctl", "check")
    holds(re.search(r"route /pages: user \d+ has no permission to read /srv/private/www", said), said)
    machine.systemctl("restart")
    holds(machine.main_pid() != pid, "it was not restarted")
    # The operator's drop-in of the unit is taken into account.
    machine.write(CONF_D / "pages.toml", routes % HIDDEN)
    machine.drop_in("ProtectHome=read-only")
    machine.run("pushctl", "check")
    machine.systemctl("restart")
    # For another file, the unit is not checked.
    machine.write("/srv/other.toml", machine.packaged)
    machine.run("pushctl", "check", "/srv/other.toml")
    machine.run("rm", "-r", HIDDEN, "/srv/private", "/srv/other.toml")
    equal([line for line in machine.run("ls", "/run", "/run/systemd/system").split() if "rehearsal" in line], [], "files of the rehearsal that are left")
    equal([unit for unit in machine.failed_units() if "rehearsal" in unit], [], "units of the rehearsal that are left")


def hands_over_credentials(machine):
    machine.fresh()
    machine.write("/run/broker.secret", "hidden\n")
    machine.drop_in("LoadCredential=broker:/run/broker.secret")
    machine.write(CONF_D / "broker.toml", '[feed.broker]\nhub = "push"\nchannel = "broker"\n'
                  '''command = ["sh", "-c", 'while :; do cat "$CREDENTIALS_DIRECTORY/broker"; sleep 1; done']\n''')
    machine.systemctl("restart")
    said = machine.run("pushctl", "subscribe", "--count", "1", "--timeout", f"{DEADLINE_S}s",
                       "ws://127.0.0.1:8888/ws?channel=broker")
    holds("hidden" in said, said)
    machine.run("rm", "/run/broker.secret")


def runs_without_its_unit(machine):
    """Started by root, with the user and the directory that the package creates."""
    machine.fresh()
    machine.systemctl("stop")
    machine.run("systemd-tmpfiles", "--create", "pushd.conf")
    machine.run("/usr/bin/pushd", "-u", "pushd", "-d", "/run/pushd")
    machine.serves()
    equal(machine.run("stat", "-c", "%U", "/run/pushd/pushd.pid").strip(), "pushd", "the owner of the pidfile")
    machine.run("pushctl", "stop")
    machine.run("rm", "/run/pushd/pushd.log")


SCENES = [
    ("pages are served, also those for its group only, but nothing outside the directory", serves_pages),
    ("with the drop-in it binds low ports", binds_low_ports),
    ("the service with sockets can replace the usual one, without a network, and back", is_switched),
    ("check takes the restrictions of the unit into account", is_checked_as_it_runs),
    ("the command of a feed finds its credential", hands_over_credentials),
    ("without its unit, it runs as its own user", runs_without_its_unit),
]
