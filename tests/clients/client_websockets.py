"""A client with the package `websockets`, controlled as described in README.md: client_websockets.py URL [ORIGIN]"""
import hashlib
import json
import sys
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def tell(**event):
    print(json.dumps(event), flush=True)


def obey(socket):
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "text":
            socket.send(order["text"])
        elif order["do"] == "binary":
            socket.send(bytes(range(256)) * (order["bytes"] // 256) + bytes(order["bytes"] % 256))
        elif order["do"] == "ping":
            tell(event="pong" if socket.ping().wait(10) else "no pong")
        elif order["do"] == "close":
            socket.close()
            return


try:
    socket = connect(sys.argv[1], origin=(sys.argv[2:] or [None])[0], max_size=None)
except InvalidStatus as refusal:
    tell(event="refused", status=refusal.response.status_code)
    sys.exit()
tell(event="open")
threading.Thread(target=obey, args=[socket], daemon=True).start()
try:
    while True:
        message = socket.recv()
        if isinstance(message, str):
            tell(event="text", text=message)
        else:
            tell(event="binary", bytes=len(message), sha256=hashlib.sha256(message).hexdigest())
except ConnectionClosed as end:
    tell(event="closed", code=end.rcvd.code if end.rcvd else None)
