"""The truth of the generator as histories, a line a customer whom the model knows anything of: for `hstu-streams encode`. Shares nothing with the
program but the files.

    python3 examples/shop/history.py .hstu/shop/truth.jsonl examples/shop/bundle/entities.txt > users.jsonl
"""
import json
import sys

with open(sys.argv[2], encoding="utf-8") as lines:
    known = {line.strip() for line in lines}
users = {}
with open(sys.argv[1], encoding="utf-8") as lines:
    for line in lines:
        said = json.loads(line)
        users.setdefault(said["user"], []).append(said)
for user, events in users.items():
    if not any(event["entity"] in known for event in events):
        continue
    events.sort(key=lambda event: event["atMs"])
    said = [{"entity": e["entity"], "action": e["action"], "eventTimeMs": e["atMs"]} | ({"value": e["value"]} if "value" in e else {}) for e in events]
    print(json.dumps({"userId": user, "events": said}))
