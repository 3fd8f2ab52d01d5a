"""The plain WebSocket with Python's websockets library.

Broadcasts, chat and tokens work, and pings, pongs and closes agree with the library.
"""

import asyncio
import json
import unittest
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness import DEADLINE_SECS, SECRET, Lab, token


async def next_frame(socket, kind):
    """Returns the next frame of that type."""
    async with asyncio.timeout(DEADLINE_SECS):
        while True:
            frame = json.loads(await socket.recv())
            if frame["type"] == kind:
                return frame


async def request(socket, kind, payload):
    await socket.send(json.dumps({"type": kind, "payload": payload, "ref": kind}))
    return (await next_frame(socket, "ack"))["payload"]


def broadcast(node, body):
    request = urllib.request.Request(
        f"{node.url}/api/broadcast", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_SECS) as answer:
        return answer.status, json.load(answer)


class PlainWebSocket(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)
        self.lab = Lab()
        self.addAsyncCleanup(self.lab.close)

    async def node(self, **env):
        node = (await self.lab.nodes_on("embedded", 1, **env))[0]
        return node, f"{node.url.replace('http', 'ws')}/ws"

    async def test_broadcasts_arrive_and_resume(self):
        node, url = await self.node()
        async with connect(f"{url}?user_id=ann&since_seq=&epoch=") as socket:
            start = (await next_frame(socket, "resumed"))["payload"]
            self.assertEqual((start["seq"], start["gap"]), (0, False))
            status, answer = await asyncio.to_thread(
                broadcast, node, {"type": "task_created", "data": {"id": 1}}
            )
            self.assertEqual((status, answer["seq"], answer["connectedClients"]), (202, 1, 1))
            frame = await next_frame(socket, "task_created")
            self.assertEqual((frame["payload"], frame["seq"]), ({"id": 1}, 1))
        for n in (2, 3):
            await asyncio.to_thread(broadcast, node, {"type": "task_created", "data": {"id": n}})
        async with connect(f"{url}?user_id=ann&since_seq=1&epoch={frame['epoch']}") as socket:
            self.assertTrue((await next_frame(socket, "resumed"))["payload"]["recovered"])
            self.assertEqual(
                [(await next_frame(socket, "task_created"))["seq"] for _ in range(2)], [2, 3]
            )
        async with connect(f"{url}?user_id=ann&since_seq=1&replay_limit=1") as socket:
            resumed = (await next_frame(socket, "resumed"))["payload"]
            self.assertEqual((resumed["gap"], resumed["replayed"]), (True, 1))
            self.assertEqual((await next_frame(socket, "task_created"))["seq"], 3)
        with self.assertRaises(InvalidStatus) as refused:
            await connect(f"{url}?user_id=ann&since_seq=1&replay_limit=0")
        self.assertEqual(refused.exception.response.status_code, 400)

    async def test_chat_pings_and_the_message_limit(self):
        _, url = await self.node(PING_INTERVAL_MS="200")
        async with connect(f"{url}?user_id=ann&chat=1") as ann, connect(
            f"{url}?user_id=bob&chat=1"
        ) as bob:
            for socket in (ann, bob):
                self.assertTrue((await request(socket, "join", {"room_id": "room"}))["ok"])
            self.assertEqual(
                (await request(ann, "message", {"room_id": "room", "content": "hi €"}))["seq"], 1
            )
            self.assertEqual((await next_frame(bob, "message"))["payload"]["content"], "hi €")
            async with asyncio.timeout(DEADLINE_SECS):
                await (await ann.ping(b"there?"))
            # Meanwhile the server pings every 200 ms. The library answers these pings automatically.
            await asyncio.sleep(1)
            await ann.send('{"type":"ping"}')
            await next_frame(ann, "pong")
        async with connect(f"{url}?user_id=eve") as eve:
            await eve.send(" " * 513)
            with self.assertRaises(ConnectionClosed) as closed:
                await next_frame(eve, "nothing")
            self.assertEqual(closed.exception.rcvd.code, 1009)

    async def test_a_token_is_accepted_in_a_header_or_a_subprotocol_and_required(self):
        _, url = await self.node(JWT_SECRET=SECRET)
        mine = token(sub="ann")
        async with connect(
            f"{url}?chat=1", additional_headers={"Authorization": f"Bearer {mine}"}
        ) as socket:
            self.assertEqual(
                (await next_frame(socket, "authenticated"))["payload"]["user_id"], "ann"
            )
        async with connect(url, subprotocols=["bearer", mine]) as socket:
            self.assertEqual(socket.subprotocol, "bearer")
        for bad in (url, f"{url}?token=nonsense"):
            with self.assertRaises(InvalidStatus) as refused:
                await connect(bad)
            self.assertEqual(refused.exception.response.status_code, 401)
            self.assertIn(
                json.loads(refused.exception.response.body)["error"],
                ("Authorization header required", "Invalid token"),
            )


if __name__ == "__main__":
    unittest.main()
