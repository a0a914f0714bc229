#!/usr/bin/env python3
"""A Muster worker in plain Python: one slot, one type (wordCount). The protocol: docs/worker-protocol.md.
MUSTER_NODE_URLS=http://127.0.0.1:5000 MUSTER_WORKER_TOKEN=... python3 examples/worker.py"""
import base64, collections, hashlib, json, os, signal, threading, time, traceback, urllib.error, urllib.parse, urllib.request, uuid

nodes = os.environ.get("MUSTER_NODE_URLS", "http://127.0.0.1:5000").split(",")
token = os.environ.get("MUSTER_WORKER_TOKEN", "")
headers = {"Content-Type": "application/json", **({"Authorization": "Bearer " + token} if token else {})}
who = {"workerId": uuid.uuid4().hex, "queue": os.environ.get("MUSTER_QUEUE", "default")}
orphan_s = float(os.environ.get("MUSTER_WORKER_ORPHAN_MS", "300000")) / 1000
me = {**who, "slots": 1, "types": ["wordCount"], "pid": os.getpid()}
if "MUSTER_INSTANCE_ID" in os.environ:
    me["instanceId"] = os.environ["MUSTER_INSTANCE_ID"]
held, draining, done = {}, threading.Event(), threading.Event()  # the leases by token; whether to stop; whether it has

def call(path, body=None, wait_ms=0, job=None):
    """One request, tried for long: any call may be repeated. Raises HTTPError for a 4xx, Lost when the job's lease is gone."""
    started = time.monotonic()
    data, method = (body, "PUT") if isinstance(body, bytes) else (json.dumps(body).encode() if body else None, None)
    while True:
        if job is not None and job["token"] not in held:
            raise Lost()
        kind = {"Content-Type": "application/octet-stream"} if method else {}
        try:
            request = urllib.request.Request(nodes[0] + path, data, {**headers, **kind}, method=method)
            with urllib.request.urlopen(request, timeout=wait_ms / 1000 + 10) as reply:
                return reply.read()
        except OSError as error:
            if 400 <= getattr(error, "code", 503) < 500:
                raise
            if time.monotonic() - started > orphan_s:
                os._exit(0)  # nobody is there: a machine that nobody can reach must not run for ever
            nodes.append(nodes.pop(0))  # out of reach, or it cannot now: the next one
            time.sleep(0.5)

class Lost(Exception):
    """The lease is gone: nobody wants the result any more."""

def heartbeat(wait_ms):
    state = "stopped" if done.is_set() else "draining" if draining.is_set() else "ready"
    body = {"worker": me, "state": state, "leases": list(held.values()), "waitMs": wait_ms}
    reply = json.loads(call("/workers/heartbeat", body, wait_ms))
    for order in reply["stop"]:  # this worker cannot interrupt a job: it forgets it and reports nothing
        held.pop(order["token"], None)
    if reply["drain"]:
        draining.set()
    if "token" in reply:  # of a token that runs out: the next one
        headers["Authorization"] = "Bearer " + reply["token"]
    return reply["leaseMs"]

def beat(lease_ms):
    while True:
        lease_ms = heartbeat(min(lease_ms // 3, 5000))

def read(content):
    if "blob" not in content:
        return base64.b64decode(content["base64"]).decode() if "base64" in content else content["json"]
    data = call(content["blob"]["url"])
    if hashlib.sha256(data).hexdigest() != content["blob"]["sha256"]:
        raise OSError("the payload is not what was submitted")
    return data.decode() if content["blob"]["kind"] == "bytes" else json.loads(data)

def run(job):
    started, result = time.monotonic(), {key: job[key] for key in ("workId", "token", "type")}
    if job["type"] not in me["types"]:  # a node gives only these; the job goes back, no attempt spent
        result["error"] = {"code": "type_unsupported", "message": job["type"]}
        return {**result, "durationMs": 0}
    try:
        payload = read(job["payload"])  # a text, or {"text": "..."}
        text = payload["text"] if isinstance(payload, dict) else payload
        result["value"] = store(job, collections.Counter(text.split()))
    except Lost:
        raise
    except BaseException as error:  # also SystemExit: a job ends its attempt, and never the worker
        code = "payload_unreadable" if isinstance(error, OSError) else "handler_error"
        result["error"] = {"code": code, "message": str(error) or repr(error), "stack": traceback.format_exc()}
    return {**result, "durationMs": (time.monotonic() - started) * 1000}

def store(job, value):
    """The value as it goes into the completion: itself, or where it was uploaded to. Raises what is wrong with it."""
    data = json.dumps(value, allow_nan=False).encode()
    if len(data) <= 16384:
        return {"json": value}
    path = "/workers/results/%s?token=%s&kind=json" % (job["workId"], urllib.parse.quote(job["token"], safe=""))
    try:
        return json.loads(call(path, data, job=job))["value"]
    except urllib.error.HTTPError as error:
        raise ValueError("the value was refused: " + error.read().decode())

def deliver(job, result):
    try:
        call("/workers/complete", {**who, "results": [result]}, job=job)
    except urllib.error.HTTPError as error:
        if error.code not in (400, 413):
            raise
        # the node takes no such result, ever: the attempt has failed
        refused = {"code": "result_refused", "message": error.read().decode()[:1000]}
        result = {key: result[key] for key in ("workId", "token", "type", "durationMs")}
        call("/workers/complete", {**who, "results": [{**result, "error": refused}]}, job=job)

def claim():
    try:
        return json.loads(call("/workers/claim", {**who, "max": 1, "waitMs": 1000}, 1000))["jobs"]
    except urllib.error.HTTPError as error:
        code = json.loads(error.read())["code"]
        if code not in ("drained_worker", "worker_unknown"):
            raise
        draining.set() if code == "drained_worker" else heartbeat(0)
    return []

for sign in (signal.SIGTERM, signal.SIGINT):  # the job at hand is finished first
    signal.signal(sign, lambda *_: draining.set())
threading.Thread(target=beat, args=(heartbeat(0),), daemon=True).start()
while not draining.is_set():
    for job in claim():
        held[job["token"]] = {"workId": job["workId"], "token": job["token"]}
        try:
            deliver(job, run(job))
        except Lost:
            pass
        held.pop(job["token"], None)
done.set()
heartbeat(0)
