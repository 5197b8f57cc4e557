"""The client of the echo document (ws4py): opens, sends, prints the echo, closes."""
from ws4py.client.threadedclient import WebSocketClient


class EchoClient(WebSocketClient):
    def opened(self):
        self.send("Hello Chetan")

    def received_message(self, message):
        print("Received from server: %s" % message)
        self.close()

    def closed(self, code, reason=None):
        print("Closed down")


client = EchoClient("ws://localhost:8888/ws")
client.connect()
client.run_forever()
