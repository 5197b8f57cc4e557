"""A draft-76 client: Autobahn 0.9.0, the release that the document of the TechOps server requires, on CPython 2.7.

Controlled as described in README.md: client_autobahn76.py URL
"""
import json
import sys
import threading

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet import reactor


def tell(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Client(WebSocketClientProtocol):
    def onOpen(self):
        tell(event="open")
        thread = threading.Thread(target=self.obey)
        thread.daemon = True
        thread.start()

    def obey(self):
        for line in iter(sys.stdin.readline, ""):
            order = json.loads(line)
            if order["do"] == "text":
                reactor.callFromThread(self.sendMessage, order["text"].encode("utf8"))
            elif order["do"] == "close":
                reactor.callFromThread(self.sendClose)

    def onMessage(self, payload, isBinary):
        tell(event="text", text=payload.decode("utf8"))

    def onClose(self, wasClean, code, reason):
        tell(event="closed", clean=wasClean)
        reactor.stop()


factory = WebSocketClientFactory(sys.argv[1], origin="http://localhost")
factory.protocol = Client
factory.setProtocolOptions(version=0, allowHixie76=True)
connectWS(factory)
reactor.run()
