"""`curl -N` as a client of event streams, controlled as described in README.md: client_curl.py URL"""
import subprocess
import sys

from stream import begin, obey, tell

# -i: the head of the response comes first, and ends with an empty line.
curl = subprocess.Popen(["curl", "-sSNi", sys.argv[1]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="utf-8")
status = int(curl.stdout.readline().split()[1])
while curl.stdout.readline().strip():
    pass
begin(status)
obey(curl.terminate)
data = []
for line in curl.stdout:
    name, _, value = line.rstrip("\n").partition(": ")
    if name == "data":
        data.append(value)
    elif not name and data:
        tell(event="text", text="\n".join(data))
        data.clear()
tell(event="lost" if curl.wait() == 0 else "closed")
