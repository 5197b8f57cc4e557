"""A client with the packages `requests` and `sseclient-py`, controlled as described in README.md: client_sseclient.py URL [LAST_EVENT_ID]"""
import sys

import requests
import sseclient

from stream import begin, obey, tell

obey()
headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": sys.argv[2]} if len(sys.argv) > 2 else {})
response = requests.get(sys.argv[1], headers=headers, stream=True, timeout=(10, None))
begin(response.status_code)
for event in sseclient.SSEClient(response).events():
    if event.data:
        tell(event="text", text=event.data, id=event.id)
tell(event="lost")
