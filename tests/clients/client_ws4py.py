"""A client with the package `ws4py`, controlled as described in README.md: client_ws4py.py URL"""
import hashlib
import json
import re
import sys
import threading

from ws4py.client import WebSocketBaseClient
from ws4py.exc import HandshakeError


def tell(**event):
    print(json.dumps(event), flush=True)


class Client(WebSocketBaseClient):
    # Not the threaded client of ws4py: it reads data that arrives together with the handshake, such as a greeting, in two threads.
    def handshake_ok(self):
        tell(event="open")

    def received_message(self, message):
        if message.is_text:
            tell(event="text", text=str(message))
        else:
            tell(event="binary", bytes=len(message.data), sha256=hashlib.sha256(message.data).hexdigest())

    def closed(self, code, reason=None):
        tell(event="closed", code=code)

    def obey(self):
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "text":
                self.send(order["text"])
            elif order["do"] == "binary":
                self.send(bytes(range(256)) * (order["bytes"] // 256) + bytes(order["bytes"] % 256), binary=True)
            elif order["do"] == "close":
                self.close()
                return


client = Client(sys.argv[1])
try:
    client.connect()
except HandshakeError as refusal:
    tell(event="refused", status=int(re.search(r"\d{3}", str(refusal)).group()))
    sys.exit()
threading.Thread(target=client.obey, daemon=True).start()
client.run()
