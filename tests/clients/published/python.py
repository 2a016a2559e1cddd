"""One published client in Python in one room, as javascript.mjs is one in JavaScript; see there.

    python python.py --list
    python python.py CLIENT ROOM PORT STOMP
"""

import json
import logging
import sys
import threading
import time
from importlib.metadata import version

PIP = {
    "requests": "requests",
    "urllib3": "urllib3",
    "httpx-sse": "httpx-sse",
    "sseclient-py": "sseclient-py",
    "websockets": "websockets",
    "websocket-client": "websocket-client",
    "python-socketio websocket": "python-socketio",
    "python-socketio polling": "python-socketio",
    "stomp.py": "stomp.py",
    "stomp.py websocket": "stomp.py",
}
RETRY = 0.1

# stomp.py logs each refused connection.
logging.disable()

last = None
lock = threading.Lock()


def say(event):
    with lock:
        print(json.dumps(event), flush=True)


def wrong(text):
    say({"wrong": str(text)})


def got(entry, text):
    global last
    with lock:
        # python-socketio gives each event to a thread of its own.
        last = max(last or entry, entry, key=lambda entry: tuple(map(int, entry.split("-"))))
    say({"id": entry, "text": text})


def forever(follow):
    """Calls `follow` again whenever it ends or its connection is lost."""

    def loop():
        while True:
            try:
                follow()
            except Exception as error:
                say({"lost": f"{type(error).__name__}: {error}"})
            else:
                say({"lost": True})
            time.sleep(RETRY)

    threading.Thread(target=loop, daemon=True).start()


def event(name, entry, data):
    if name in (None, "", "message"):
        got(entry, json.loads(data)["fields"]["message"])
    elif name in ("gap", "error"):
        wrong(data)


def lines(each):
    """Events out of lines of bytes, as a program without a library for them reads them."""
    fields = {}
    for line in each:
        line = line.decode().rstrip("\r\n")
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        if line == "":
            if "data" in fields:
                event(fields.get("event"), fields.get("id"), fields["data"])
            fields = {}


class Http:
    def __init__(self, room, port):
        self.room = f"http://127.0.0.1:{port}/rooms/{room}"
        self.events = f"{self.room}?from=start"

    def headers(self):
        return {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}

    def answered(self, status):
        if status != 201:
            wrong(f"POST answers {status}")


def requests_client(room, port, _):
    import requests

    http = Http(room, port)

    def follow():
        with requests.get(http.events, headers=http.headers(), stream=True, timeout=(5, None)) as response:
            response.raise_for_status()
            # One byte at a time: requests waits for a whole chunk otherwise.
            lines(response.iter_lines(chunk_size=1))

    forever(follow)
    return lambda text: http.answered(requests.post(http.room, data=text.encode(), timeout=30).status_code)


def urllib3_client(room, port, _):
    import urllib3

    http = Http(room, port)
    pool = urllib3.PoolManager(retries=False)

    def follow():
        response = pool.request("GET", http.events, headers=http.headers(), preload_content=False)
        lines(response)

    forever(follow)
    return lambda text: http.answered(pool.request("POST", http.room, body=text.encode()).status)


def httpx_client(room, port, _):
    import httpx
    from httpx_sse import connect_sse

    http = Http(room, port)

    def follow():
        with httpx.Client(timeout=None) as client:
            with connect_sse(client, "GET", http.events, headers=http.headers()) as source:
                for each in source.iter_sse():
                    event(each.event, each.id, each.data)

    forever(follow)
    return lambda text: http.answered(httpx.post(http.room, content=text.encode()).status_code)


def sseclient_client(room, port, _):
    import requests
    import sseclient

    http = Http(room, port)

    def follow():
        response = requests.get(http.events, headers=http.headers(), stream=True, timeout=(5, None))
        for each in sseclient.SSEClient(response.iter_content(chunk_size=1)).events():
            event(each.event, each.id, each.data)

    forever(follow)
    return lambda text: http.answered(requests.post(http.room, data=text.encode(), timeout=30).status_code)


def frame(text):
    told = json.loads(text)
    if told["type"] == "entry":
        got(told["id"], told["fields"]["message"])
    elif told["type"] in ("gap", "error"):
        wrong(text)


def socket_url(room, port):
    return f"ws://127.0.0.1:{port}/rooms/{room}?format=json&from={last or 'start'}"


def publishing(text):
    return json.dumps({"type": "publish", "message": text})


def websockets_client(room, port, _):
    from websockets.sync.client import connect

    held = {}

    def follow():
        with connect(socket_url(room, port)) as socket:
            held["socket"] = socket
            for text in socket:
                frame(text)

    forever(follow)
    return lambda text: held["socket"].send(publishing(text))


def websocket_client(room, port, _):
    import websocket

    held = {}

    def follow():
        app = websocket.WebSocketApp(socket_url(room, port), on_message=lambda _, text: frame(text))
        held["app"] = app
        app.run_forever()

    forever(follow)
    return lambda text: held["app"].send(publishing(text))


def socketio_client(transport):
    def client(room, port, _):
        import socketio

        socket = socketio.Client(reconnection_delay=RETRY, reconnection_delay_max=0.5)
        # The last argument of an event is its offset, where the connection can recover.
        socket.on("message", lambda told, *_: got(told["data"]["id"], told["data"]["text"]))
        socket.on("disconnect", lambda *_: say({"lost": True}))
        for name in ("tailcast:gap", "tailcast:error", "tailcast:left", "tailcast:closed"):
            socket.on(name, lambda told, name=name: wrong(f"{name} {told}"))
        socket.connect(
            f"http://127.0.0.1:{port}",
            # Asked for before each connection.
            auth=lambda: {"room": room, "from": last or "start"},
            transports=[transport],
            retry=True,
        )
        return lambda text: socket.emit("say", text)

    return client


def stomp_client(websocket):
    def client(room, port, stomp_port):
        import stomp

        destination = f"/topic/{room}"
        held = {}

        class Listener(stomp.ConnectionListener):
            def __init__(self):
                self.over = threading.Event()

            def on_message(self, frame):
                if "x-gap-reason" in frame.headers:
                    wrong(frame.body)
                else:
                    got(frame.headers["message-id"], frame.body)

            def on_error(self, frame):
                wrong(frame.headers.get("message"))

            def on_disconnected(self):
                self.over.set()

        def follow():
            if websocket:
                connection = stomp.WSStompConnection([("127.0.0.1", port)], ws_path="/stomp", reconnect_attempts_max=1)
            else:
                connection = stomp.Connection12([("127.0.0.1", stomp_port)], reconnect_attempts_max=1)
            listener = Listener()
            connection.set_listener("", listener)
            connection.connect(wait=True)
            connection.subscribe(destination, "1", headers={"last-id": last} if last else {"from": "start"})
            held["connection"] = connection
            listener.over.wait()

        forever(follow)
        return lambda text: held["connection"].send(destination, text)

    return client


SSE, WS, SIO = "SSE", "WebSocket", "Socket.IO"
ITSELF, ANEW = "itself", "new connection"
CLIENTS = {
    "requests": (SSE, ANEW, requests_client),
    "urllib3": (SSE, ANEW, urllib3_client),
    "httpx-sse": (SSE, ANEW, httpx_client),
    "sseclient-py": (SSE, ANEW, sseclient_client),
    "websockets": (WS, ANEW, websockets_client),
    "websocket-client": (WS, ANEW, websocket_client),
    "python-socketio websocket": (SIO, ITSELF, socketio_client("websocket")),
    "python-socketio polling": (SIO, ITSELF, socketio_client("polling")),
    "stomp.py": ("STOMP, TCP", ANEW, stomp_client(False)),
    "stomp.py websocket": ("STOMP, WebSocket", ANEW, stomp_client(True)),
}

if sys.argv[1] == "--list":
    for name, (protocol, comes, _) in CLIENTS.items():
        about = {"client": name, "version": version(PIP[name]), "protocol": protocol, "comes": comes}
        # This one calls its listeners in threads of their own, so that their order is nobody's promise.
        say({**about, "unordered": PIP[name] == "python-socketio"})
else:
    publish = CLIENTS[sys.argv[1]][2](*sys.argv[2:])
    for line in sys.stdin:
        try:
            publish(line.rstrip("\n"))
        except Exception as error:
            wrong(f"publish: {type(error).__name__}: {error}")
