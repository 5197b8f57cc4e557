"""Upgrades and restarts with an obstacle: a mistake in the file, a taken port, a missing user, a program that does not run.

In all cases the connected clients stay. If the new version could not start, an upgrade does not touch the old process. If a restart
fails, its clients wait for the next start that succeeds.
"""
import pathlib
import shutil
import socket
import subprocess
from contextlib import contextmanager

from lifecycle import mistaken
from machine import CONF_D, CONFIG, equal, holds, until
from package import NEXT_DEB
from websocket import WebSocket

BROKEN_DEB = "/opt/pushd-broken.deb"
RPM_SCRIPT = pathlib.Path(__file__).parents[2] / "packaging/rpm/post_install.sh"
SECOND = ("127.0.0.1", 8889)
SECOND_SERVER = '[server.second]\nlisten = "%s:%d"\nroutes."/healthz" = { health = true }\n' % SECOND
KEPT = "pushd.service was not restarted, because the new version could not start:\n"


@contextmanager
def taken(address):
    """An address that another program listens on."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(address)
        other.listen()
        yield other


def upgrade(machine, deb=NEXT_DEB):
    """An upgrade (for dpkg, installing the same version again is the same); it must succeed for dpkg. Returns the output."""
    said = machine.run("dpkg", "--force-confold", "--install", deb)
    holds(machine.run("dpkg-query", "-W", "-f", "${Status}", "pushd") == "install ok installed", said)
    equal(machine.run("dpkg", "--audit"), "", "unfinished work of dpkg")
    return said


def broken(machine):
    """Builds a version whose program cannot be executed here."""
    tree = machine.path("/opt/broken")
    subprocess.run(["dpkg-deb", "-R", machine.path(NEXT_DEB), tree], check=True)
    (tree / "usr/bin/pushd").write_text("#!/lib/of-another-machine\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree, machine.path(BROKEN_DEB)],
                   check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return BROKEN_DEB


def heard(machine, client, text):
    """Checks that a client is still connected and receives messages."""
    equal(machine.publish(text), 1, "subscribers")
    client.expect_text(text)


@contextmanager
def left_alone(machine, client, *reasons, deb=NEXT_DEB):
    """An upgrade that does not touch the old process and prints the reason."""
    pid = machine.main_pid()
    said = upgrade(machine, deb)
    for reason in (KEPT, *reasons, "Solve this problem, then run: systemctl restart pushd.service"):
        holds(reason in said, f"{reason!r} in {said}")
    equal((machine.state(), machine.main_pid(), machine.restarts()), ("active/running", pid, 0), "the service")
    heard(machine, client, "the old version goes on")
    yield said
    heard(machine, client, "the new version goes on")
    holds(machine.main_pid() != pid, "the old version still runs")
    equal(machine.state(), "active/running", "the service")


def with_a_mistake(machine):
    machine.fresh()
    with WebSocket() as client:
        place = mistaken(machine)
        with left_alone(machine, client, place, "did you mean `push`"):
            machine.write(CONFIG, machine.packaged)
            machine.systemctl("restart")


def with_a_taken_port(machine):
    machine.fresh()
    with WebSocket() as client:
        machine.write(CONF_D / "second.toml", SECOND_SERVER)
        with taken(SECOND) as other:
            with left_alone(machine, client, "cannot listen on 127.0.0.1:8889: another program uses this port") as said:
                holds("8888" not in said, f"its own address is reported as taken: {said}")
                # A restart by the operator fails, and the clients wait until the port is free.
                machine.fails("systemctl", "restart", "pushd")
                until("another try", lambda: machine.restarts() > 1)
                other.close()
                until("it comes back by itself", lambda: machine.state() == "active/running")


def without_its_user(machine):
    """A unit with a user that the operator chose. (The user of the packages would be created again by the upgrade.)"""
    machine.fresh()
    machine.run("useradd", "--system", "web")
    machine.drop_in("User=web")
    machine.systemctl("restart")
    with WebSocket() as client:
        machine.run("sed", "-i", "/^web:/d", "/etc/passwd")
        with left_alone(machine, client, "the user does not exist (217/USER)"):
            holds("217/USER" in machine.fails("pushctl", "check"), "check does not report it")
            machine.fails("systemctl", "restart", "pushd")
            machine.run("useradd", "--system", "--gid", "web", "web")
            until("it comes back by itself", lambda: machine.state() == "active/running")
    machine.systemctl("stop")
    machine.run("userdel", "web")


def that_does_not_run(machine):
    machine.fresh()
    with WebSocket() as client:
        with left_alone(machine, client, "the program cannot be executed (203/EXEC)", deb=broken(machine)):
            machine.fails("systemctl", "restart", "pushd")
            holds("not restarted" not in upgrade(machine), "the version that works was not started")
    machine.run("rm", BROKEN_DEB)


def makes_its_user_again(machine):
    machine.fresh()
    with WebSocket() as client:
        machine.run("sed", "-i", "/^pushd:/d", "/etc/passwd")
        holds("217/USER" in machine.fails("pushctl", "check"), "check does not report it")
        said = upgrade(machine)
        holds("not restarted" not in said, said)
        heard(machine, client, "with its user")
    equal(machine.run("stat", "-c", "%U", f"/proc/{machine.main_pid()}", "/run/pushd").split(), ["pushd"] * 2, "the owners")


def by_rpm(machine):
    """Runs the script of the .rpm for an upgrade as rpm does: with a shell and the argument 2."""
    machine.fresh()
    script = RPM_SCRIPT.read_text()
    machine.write("/srv/post_install.sh", script)
    pid = machine.main_pid()
    with WebSocket() as client:
        place = mistaken(machine)
        said = machine.run("sh", "-e", "/srv/post_install.sh", 2)
        holds(KEPT in said and place in said, said)
        equal((machine.state(), machine.main_pid()), ("active/running", pid), "the service")
        heard(machine, client, "the old version goes on")
        machine.write(CONFIG, machine.packaged)
        equal(machine.run("sh", "-e", "/srv/post_install.sh", 2), "", "its output")
        holds(machine.main_pid() != pid, "the old version still runs")
        heard(machine, client, "the new version goes on")
    machine.systemctl("stop")
    machine.run("sh", "-e", "/srv/post_install.sh", 2)
    equal(machine.state(), "inactive/dead", "a service that was stopped")
    machine.run("rm", "/srv/post_install.sh")


def by_a_credential(machine):
    """An obstacle that only systemd can find: it cannot load a credential of the unit."""
    machine.fresh()
    with WebSocket() as client:
        machine.drop_in("LoadCredential=broker:/run/broker.secret")
        with left_alone(machine, client, "243/CREDENTIALS"):
            machine.drop_in("")
            machine.systemctl("restart")


SCENES = [
    ("an upgrade creates a missing user of the service", makes_its_user_again),
    ("an upgrade by rpm with a mistake in the file keeps the old process; without one it restarts it", by_rpm),
    ("an upgrade with a mistake in the file keeps the old process, and prints the place", with_a_mistake),
    ("an upgrade with a taken port keeps the old process, and a restart waits for the port", with_a_taken_port),
    ("an upgrade without its user keeps the old process, and a restart waits for the user", without_its_user),
    ("an upgrade to a program that does not run keeps the old process", that_does_not_run),
    ("an upgrade without a credential keeps the old process", by_a_credential),
]
