"""The package is installed, upgraded, removed and purged."""
import pathlib
import re
import shutil
import subprocess

from machine import CONF_D, CONFIG, equal, holds, until
from websocket import WebSocket

DEB = "/opt/pushd.deb"
NEXT_DEB = "/opt/pushd-next.deb"
STATE = pathlib.PurePosixPath("/var/lib/pushd")
PLACES = ("/etc", "/usr", "/var", "/run", "/boot", "/home", "/root", "/srv", "/opt")
# Files in which apt, dpkg, systemd and logrotate keep their own state.
THEIRS = re.compile(r"/(var/(lib/(dpkg|apt|logrotate|systemd/(timers|catalog|coredump))|cache/(apt|debconf|ldconfig)|log/(apt|journal|dpkg\.log))|"
                    r"run/(systemd/(dynamic-uid|journal|units|inaccessible|transient|propagate)|log/journal))(/|$)")
MANUALS = ["man1/pushctl.1.gz", "man5/pushd.toml.5.gz", "man8/pushd.8.gz"]

# The files and the failed units before the package was installed.
before = frozenset()
failed_before = set()


def files(machine):
    """All files, except the state of other programs."""
    said = machine.run("find", *PLACES, "-xdev", "-print")
    found = frozenset(line for line in said.splitlines() if not THEIRS.match(line))
    holds(len(found) > 1000, f"{len(found)} files")
    return found


def receive(machine, deb):
    """Copies the package into the machine, and builds the next version of it, with a different default configuration."""
    global before, failed_before
    shutil.copy(deb, machine.path(DEB))
    tree = machine.path("/opt/next")
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    config = machine.packaged = (tree / str(CONFIG).lstrip("/")).read_text()
    (tree / str(CONFIG).lstrip("/")).write_text(f"# The next version.\n{config}")
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.0-1", control.read_text(), flags=re.M))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree, machine.path(NEXT_DEB)],
                   check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    before, failed_before = files(machine), machine.failed_units()


def install(machine, deb, *options):
    return machine.run("apt-get", "install", "-y", "-q", *options, deb)


def version(machine):
    return machine.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "pushd")


def arrives(machine):
    install(machine, DEB)
    # The maintainer scripts wait until the service serves.
    machine.serves()
    equal(machine.state(), "active/running", "the service")
    equal(machine.systemctl("is-enabled").strip(), "enabled", "the unit")
    equal(machine.run("dpkg", "--verify", "pushd"), "", "files that differ from the package's")
    equal(machine.failed_units() - failed_before, set(), "failed units")
    page = machine.ask("GET", "/")
    holds(page[0] == 200 and "<html" in page[1].lower(), f"the page: {page}")


def manuals(machine):
    for manual in MANUALS:
        text = machine.run("zcat", f"/usr/share/man/{manual}")
        holds(text.count("\n") > 50, f"{manual} has {len(text)} bytes")
    examples = machine.run("sh", "-c", "ls /usr/share/doc/pushd/examples/*.toml").split()
    equal(len(examples), 6, "examples")
    for example in examples:
        machine.run("pushctl", "check", example)


def edited(machine):
    """Edits the configuration as an operator does; returns the text."""
    machine.configure("#message_max = ", 'message_max = "1KiB" #')
    return machine.read(CONFIG)


def upgrades(machine):
    machine.fresh()
    text = edited(machine)
    machine.systemctl("restart")
    pid = machine.main_pid()
    with WebSocket() as client:
        said = install(machine, NEXT_DEB, "-o", "Dpkg::Options::=--force-confold")
        equal(machine.ask("POST", "/publish/all", "still here?")[0], 200, "a publication")
        client.expect_text("still here?")
    holds("99.0-1" in version(machine), said)
    equal(machine.read(CONFIG), text, "the configuration")
    holds(machine.read(f"{CONFIG}.dpkg-dist").startswith("# The next version."), "the new default is not beside it")
    machine.serves()
    equal((machine.state(), machine.restarts()), ("active/running", 0), "the service")
    holds(machine.main_pid() != pid, "the old version still runs")
    equal(machine.ask("POST", "/publish/all", "x" * 1025)[0], 413, "the setting of the operator")


def goes(machine):
    machine.fresh()
    text = edited(machine)
    machine.write(CONF_D / "mine.toml", '[hub.push]\nqueue_max = "2MiB"\n')
    machine.systemctl("restart")
    with WebSocket() as client:
        with machine.popen("apt-get", "remove", "-y", "-q", "pushd", stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as removal:
            client.expect_close(1001)
            said = removal.stdout.read()
        equal(removal.returncode, 0, said)
    equal(version(machine).split()[:3], ["deinstall", "ok", "config-files"], "the state in dpkg")
    holds(machine.state() == "inactive/dead", machine.state())
    for program in ("/usr/bin/pushd", "/usr/bin/pushctl"):
        machine.fails("test", "-e", program)
    equal(machine.read(CONFIG), text, "the configuration")


def comes_again(machine):
    text = machine.read(CONFIG)
    install(machine, NEXT_DEB, "-o", "Dpkg::Options::=--force-confold")
    machine.serves()
    equal(machine.state(), "active/running", "the service")
    equal(machine.systemctl("is-enabled").strip(), "enabled", "the unit")
    equal(machine.read(CONFIG), text, "the configuration")


def leaves_nothing(machine):
    machine.fresh()
    machine.write(CONF_D / "log.toml", '[log]\nfile = "/var/log/pushd/pushd.log"\n')
    machine.systemctl("restart")
    machine.write(STATE / "kept", "by a feed")
    until("a log", lambda: machine.try_run("test", "-s", "/var/log/pushd/pushd.log")[0] == 0)
    machine.run("apt-get", "purge", "-y", "-q", "pushd")
    equal(machine.try_run("dpkg-query", "-W", "pushd")[0], 1, "dpkg still knows it")
    left = files(machine) - before
    print(f"      left behind: {', '.join(sorted(left)) or 'nothing'}", flush=True)
    equal(sorted(left), [], "left behind")
    equal(sorted(before - files(machine)), [], "files that the purge removed but that are not of the package")
    equal(machine.failed_units() - failed_before, set(), "failed units")


ARRIVAL = [
    ("an installation enables and starts the service", arrives),
    ("it contains manuals and examples", manuals),
]
UPGRADE = [("an upgrade keeps the changes of the operator, and runs the new version", upgrades)]
DEPARTURE = [
    ("a removal closes the sessions, stops the service, and keeps the configuration", goes),
    ("a new installation uses the kept configuration", comes_again),
    ("a purge removes everything", leaves_nothing),
]
