"""Tests what docs/on-the-internet.md describes with real clients: its configuration on a port with TLS, its programs in PHP, Python and
Ruby, and clients from other projects over TLS.

    internet.py PUSHD REPOSITORY

Run it as run.py, whose parts it uses. It also needs `openssl`, `php` and `ruby`. A program of the page that has no
interpreter here is a failure.
"""
import base64
import hashlib
import hmac
import os
import re
import time

import run
from run import *

WEB = "https://localhost:8443"
SOCKET = "wss://localhost:8443/ws"
# The parts of the page's configuration that a test cannot have, with what is in their place.
REPLACED = {
    'listen = "[::]:443"': 'listen = "127.0.0.1:8443"',
    'listen = "[::]:80"': 'listen = "127.0.0.1:8088"',
    'hosts = ["push.example.com"]': 'hosts = ["localhost"]',
}
BACKEND_KEY, USERS_KEY = "a-key-that-the-backend-shows-of-32-bytes", "a-secret-that-signs-tokens-of-32-bytes"


# The page

def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def configuration(page):
    """The page's configuration, with a certificate from files."""
    whole = next(block for block in blocks(page, "toml") if ".routes]" in block)
    for shown, used in REPLACED.items():
        assert shown in whole, f"the page has no {shown}"
        whole = whole.replace(shown, used)
    with_files, count = re.subn(r"^tls = .*$", 'tls = { certificate = "site.pem", key = "site.key" }', whole, flags=re.MULTILINE)
    equal(count, 1, "lines with a certificate")
    return with_files


def prepare(home, page):
    """Writes the configuration, its secrets, and a certificate for localhost that all clients trust."""
    place = home / "config"
    (place / "internet.toml").write_text(configuration(page))
    for name, secret in [("backend.key", BACKEND_KEY), ("users.key", USERS_KEY)]:
        (place / name).write_text(secret + "\n")
        (place / name).chmod(0o600)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", place / "site.key", "-out", place / "site.pem"],
        check=True, capture_output=True)
    (place / "site.key").chmod(0o600)
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"]:
        os.environ[name] = str(place / "site.pem")


def token(user, seconds=3600, **claims):
    encoded = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    body = encoded(b'{"alg":"HS256"}') + b"." + encoded(json.dumps({"sub": user, "exp": int(time.time()) + seconds, **claims}).encode())
    return (body + b"." + encoded(hmac.digest(USERS_KEY.encode(), body, hashlib.sha256))).decode()


def bearer(secret):
    return ["-H", f"Authorization: Bearer {secret}"]


def publish(expected, channel, text, *arguments):
    reached(expected, *bearer(BACKEND_KEY), *arguments, "-d", text, f"{WEB}/publish/{channel}")


# The checks

def programs(t, page):
    """Each program of the page publishes, and the token that it makes is good."""
    for language, command, name in [("php", ["php"], "PHP"), ("python", [sys.executable], "Python"), ("ruby", ["ruby"], "Ruby")]:
        with check(f"internet: the page's program in {name} publishes, and makes a token"):
            program = next(block for block in blocks(page, language) if "push.example.com" in block)
            program = program.replace("push.example.com", "localhost:8443")
            client = t.open("websockets", f"{SOCKET}?token={token('7')}")
            done = subprocess.run(command, input=program, capture_output=True, text=True, cwd=t.server.config.parent, timeout=DEADLINE_S)
            equal(done.returncode, 0, f"{name}: {done.stderr.strip()}")
            made, answer = done.stdout.strip().split("\n", 1)
            equal(json.loads(answer)["subscribers"], 1, "subscribers that it reached")
            client.receives(f"Hello from {name}")
            client.close()
            client = t.open("ws", f"{SOCKET}?token={made}")
            publish(1, "user%2F7", "the token is good")
            client.receives("the token is good")
            client.close()


def sessions(t):
    for kind in ["websockets", "ws"]:
        with check(f"internet: {kind} over TLS receives what its token gives it"):
            client = t.open(kind, f"{SOCKET}?token={token(kind)}")
            publish(0, "user%2Fsomebody", "for another user")
            publish(1, f"user%2F{kind}", "for this user")
            publish(1, "all", "for all")
            client.receives("for this user")
            client.receives("for all")
            client.close()
    for kind in STREAMS:
        with check(f"internet: {kind} over TLS receives events"):
            client = t.open(kind, f"{WEB}/events?token={token(kind)}")
            for text in ["one", "two", "x" * 60_000]:
                publish(1, f"user%2F{kind}", text)
                client.receives(text)
            client.close()
    with check("internet: a session ends when its token does"):
        client = t.open("ws", f"{SOCKET}?token={token('brief', seconds=2)}")
        found = client.sees("closed")
        equal(found["code"], 1008, "close code")


def refusals(t):
    with check("internet: no token, and tokens that are not good, are refused"):
        for path in ["/ws", "/events"]:
            upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
                       "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "--http1.1"] if path == "/ws" else []
            for bad in ["", "?token=x", f"?token={token('7', seconds=-60)}", f"?token={token('7')}x"]:
                reply = status(401, *upgrade, f"{WEB}{path}{bad}")
                assert "www-authenticate" in reply.fields, reply.fields
    with check("internet: only the key publishes, and only where it may"):
        status(401, "-d", "x", f"{WEB}/publish/all")
        status(401, *bearer("not the key"), "-d", "x", f"{WEB}/publish/all")
        status(403, *bearer(BACKEND_KEY), "-d", "x", f"{WEB}/publish/elsewhere")
        status(421, "-H", "Host: other.example", *bearer(BACKEND_KEY), "-d", "x", f"{WEB}/publish/all")
    with check("internet: the plain server sends everything to https"):
        reply = status(308, "-d", "x", "http://localhost:8088/publish/all?a=b")
        equal(reply.fields["location"].split("/", 3)[3], "publish/all?a=b", "where it goes")


def s_client(*arguments, typed=""):
    """What `openssl s_client` prints."""
    command = ["openssl", "s_client", "-connect", "127.0.0.1:8443", "-servername", "localhost", *arguments]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=DEADLINE_S)
    return done.returncode, done.stdout + done.stderr


def protocol():
    """What a scanner of TLS would look at."""
    for version, accepted in [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)]:
        with check(f"internet: {version[1:]} is {'accepted' if accepted else 'refused'}"):
            code, said = s_client(version, "-cipher", "ALL:@SECLEVEL=0")
            equal(code == 0, accepted, said[-500:])
    with check("internet: ciphers without forward secrecy or authenticated encryption are refused"):
        for cipher in ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA", "DES-CBC3-SHA", "aNULL", "eNULL"]:
            code, said = s_client("-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
            assert code != 0, f"{cipher} was accepted"
    with check("internet: TLS has no compression, no renegotiation, and no early data"):
        code, said = s_client("-tls1_2")
        assert "Compression: NONE" in said and "Secure Renegotiation IS supported" in said, said
        code, said = s_client("-tls1_2", typed="R\n")
        assert "RENEGOTIATING" in said and "no renegotiation" in said.lower(), said[-500:]
        _, said = s_client("-tls1_3", "-ign_eof", typed="GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert "Max Early Data: 0" in said, said[-2000:]
    with check("internet: keys are changed on demand, in both directions"):
        code, said = s_client("-tls1_3", typed="K\nk\nGET / HTTP/1.0\n\n")
        assert "KEYUPDATE" in said and "alert" not in said.lower(), said[-800:]
    with check("internet: a client that offers no common protocol is refused"):
        code, said = s_client("-alpn", "spdy/3")
        assert code != 0 and "no application protocol" in said, said[-500:]


def secrets(t):
    with check("internet: no secret and no token is in the log"):
        log = t.server.log()
        found = [secret for secret in [BACKEND_KEY, USERS_KEY, token("x").split(".")[0] + "."] if secret in log]
        equal(found, [], "secrets in the log")


def internet(t):
    page = (pathlib.Path(sys.argv[2]) / "docs" / "on-the-internet.md").read_text()
    programs(t, page)
    sessions(t)
    refusals(t)
    protocol()
    secrets(t)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pushd, repository = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    scratch = tempfile.mkdtemp(prefix="pushd-internet-")
    server = Server(pushd, repository, scratch, "internet.toml", [8443, 8088])
    trial = Trial(server)
    try:
        prepare(server.home, (repository / "docs" / "on-the-internet.md").read_text())
        with check("internet: starts"):
            server.start()
            internet(trial)
        with check("internet: SIGINT stops it with 0"):
            server.stop()
    finally:
        for client in trial.clients:
            client.kill()
        if run.failed:
            print("".join(f"      | {line}\n" for line in server.log().splitlines()[-60:]), end="", flush=True)
        shutil.rmtree(scratch)
    print(f"{run.passed} passed, {run.failed} failed")
    sys.exit(1 if run.failed or not run.passed else 0)


if __name__ == "__main__":
    main()
