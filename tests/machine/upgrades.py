"""Upgrades and restarts that find something in their way: a mistake, a taken port, no user, a program that does not run.

Whatever it is, who is connected stays: an upgrade that could not start leaves the old process alone, and a restart that cannot start leaves
its clients to the one that can.
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
    """An upgrade (dpkg makes no difference between one and the same version again), which dpkg must think well of; what it said."""
    said = machine.run("dpkg", "--force-confold", "--install", deb)
    holds(machine.run("dpkg-query", "-W", "-f", "${Status}", "pushd") == "install ok installed", said)
    equal(machine.run("dpkg", "--audit"), "", "what dpkg thinks is half done")
    return said


def broken(machine):
    """A version whose program cannot be executed here."""
    tree = machine.path("/opt/broken")
    subprocess.run(["dpkg-deb", "-R", machine.path(NEXT_DEB), tree], check=True)
    (tree / "usr/bin/pushd").write_text("#!/lib/of-another-machine\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree, machine.path(BROKEN_DEB)],
                   check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return BROKEN_DEB


def heard(machine, client, text):
    """That a client is still there, and hears."""
    equal(machine.publish(text), 1, "subscribers")
    client.expect_text(text)


@contextmanager
def left_alone(machine, client, *reasons, deb=NEXT_DEB):
    """An upgrade that leaves the old process alone and says why."""
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
                holds("8888" not in said, f"its own address is in its way: {said}")
                # A restart that is wanted all the same fails, and what it leaves waits for the port.
                machine.fails("systemctl", "restart", "pushd")
                until("another try", lambda: machine.restarts() > 1)
                other.close()
                until("it comes back by itself", lambda: machine.state() == "active/running")


def without_its_user(machine):
    """The unit as the operator changed it; the user that the packages make is made again by an upgrade."""
    machine.fresh()
    machine.run("useradd", "--system", "web")
    machine.drop_in("User=web")
    machine.systemctl("restart")
    with WebSocket() as client:
        machine.run("sed", "-i", "/^web:/d", "/etc/passwd")
        with left_alone(machine, client, "the user does not exist (217/USER)"):
            holds("217/USER" in machine.fails("pushctl", "check"), "check says nothing of it")
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
            holds("not restarted" not in upgrade(machine), "the good one is not started")
    machine.run("rm", BROKEN_DEB)


def makes_its_user_again(machine):
    machine.fresh()
    with WebSocket() as client:
        machine.run("sed", "-i", "/^pushd:/d", "/etc/passwd")
        holds("217/USER" in machine.fails("pushctl", "check"), "check says nothing of it")
        said = upgrade(machine)
        holds("not restarted" not in said, said)
        heard(machine, client, "with its user")
    equal(machine.run("stat", "-c", "%U", f"/proc/{machine.main_pid()}", "/run/pushd").split(), ["pushd"] * 2, "whose it is")


def by_rpm(machine):
    """What the .rpm runs after an upgrade, which leaves one version, as rpm runs it: by a shell, with that number."""
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
        equal(machine.run("sh", "-e", "/srv/post_install.sh", 2), "", "what it says")
        holds(machine.main_pid() != pid, "the old version still runs")
        heard(machine, client, "the new version goes on")
    machine.systemctl("stop")
    machine.run("sh", "-e", "/srv/post_install.sh", 2)
    equal(machine.state(), "inactive/dead", "what was stopped")
    machine.run("rm", "/srv/post_install.sh")


def by_a_credential(machine):
    """What only systemd can tell: that it could not give what the unit promises."""
    machine.fresh()
    with WebSocket() as client:
        machine.drop_in("LoadCredential=broker:/run/broker.secret")
        with left_alone(machine, client, "243/CREDENTIALS"):
            machine.drop_in("")
            machine.systemctl("restart")


SCENES = [
    ("an upgrade makes the user of the service again", makes_its_user_again),
    ("an upgrade by rpm leaves the old process alone over a mistake, and else restarts it", by_rpm),
    ("an upgrade over a mistake leaves the old process alone, and says where", with_a_mistake),
    ("an upgrade over a taken port leaves the old process alone, and a restart waits for the port", with_a_taken_port),
    ("an upgrade without its user leaves the old process alone, and a restart waits for the user", without_its_user),
    ("an upgrade to a program that does not run leaves the old process alone", that_does_not_run),
    ("an upgrade without a credential leaves the old process alone", by_a_credential),
]
