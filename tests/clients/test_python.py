"""The whole chat with the Python client: asyncio and threads, every transport, both backplanes."""

import asyncio
import logging
import time
import unittest

import socketio

from harness import (
    SECRET,
    DEADLINE_SECS,
    TRANSPORTS,
    VERSION_4,
    AsyncClient,
    Lab,
    ThreadClient,
    eventually,
    get,
    token,
)

KINDS = {"asyncio": AsyncClient, "threads": ThreadClient}
BACKPLANES = ["embedded", "redis"]


class LabTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        # unittest's debug mode would report unfinished tasks of the client library.
        asyncio.get_running_loop().set_debug(False)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        self.lab = Lab()
        self.addAsyncCleanup(self.lab.close)

    async def ok(self, client, event, data):
        answer = await client.call(event, data)
        self.assertTrue(answer["ok"], f"{event} {data} → {answer}")
        return answer

    async def refused(self, code, client, event, data=None):
        answer = await client.call(event, data)
        self.assertEqual(
            (answer["ok"], answer.get("code")), (False, code), f"{event} {data} → {answer}"
        )

    def assert_no_hole(self, messages, first):
        self.assertEqual(
            [message["seq"] for message in messages], list(range(first, first + len(messages)))
        )
        self.assertLessEqual(len({message["epoch"] for message in messages}), 1)


def for_each_client(cls):
    """Adds `test_<name>_<kind>_<transport>_<backplane>` for each method `scenario_<name>`. A class may
    have fewer backplanes."""
    for name in [name for name in vars(cls) if name.startswith("scenario_")]:
        for kind, make in KINDS.items():
            for transport, transports in TRANSPORTS.items():
                for backplane in getattr(cls, "BACKPLANES", BACKPLANES):

                    async def test(
                        self,
                        scenario=getattr(cls, name),
                        make=make,
                        transports=transports,
                        backplane=backplane,
                    ):
                        await scenario(self, make, transports, backplane)

                    setattr(
                        cls,
                        f"test_{name.removeprefix('scenario_')}_{kind}_{transport}_{backplane}",
                        test,
                    )
    return cls


@for_each_client
class Matrix(LabTest):
    async def scenario_chat(self, kind, transports, backplane):
        near, far = await self.lab.nodes_on(backplane, 2, PRESENCE_GRACE_MS="300")
        a = await self.lab.user(kind, near.url, "ada", transports)
        b = await self.lab.user(kind, far.url, "bob", transports)
        if len(transports) == 2:
            await eventually(
                lambda: a.io.transport() == b.io.transport() == "websocket", "the upgrade"
            )
        self.assertEqual(await a.next("authenticated"), {"user_id": "ada", "username": "ada"})

        joined = await self.ok(a, "join", {"room_id": "room"})
        self.assertEqual(
            (
                joined["total"],
                joined["seq"],
                joined["recovered"],
                joined["gap"],
                joined["replayed"],
            ),
            (1, 0, False, False, 0),
        )
        self.assertEqual(
            await a.next("room_users"), {"room_id": "room", "users": ["ada"], "total": 1}
        )
        await self.ok(b, "join", {"room_id": "room"})
        users = await b.next("room_users")
        self.assertEqual((sorted(users["users"]), users["total"]), (["ada", "bob"], 2))
        self.assertEqual(
            await a.next("user_joined"), {"room_id": "room", "user_id": "bob", "username": "bob"}
        )

        acks = await asyncio.gather(
            *(
                self.ok(client, "message", {"room_id": "room", "content": f"{index}"})
                for index in range(5)
                for client in (a, b)
            )
        )
        for client in (a, b):
            await client.next("message", lambda message: message["seq"] == 10)
            self.assert_no_hole(client.messages("room"), 1)
        self.assertEqual(a.messages("room"), b.messages("room"))
        self.assertEqual(
            {ack["id"] for ack in acks}, {message["id"] for message in a.messages("room")}
        )
        self.assertTrue(all(ack["epoch"] == joined["epoch"] for ack in acks))

        await self.ok(a, "typing", {"room_id": "room"})
        self.assertEqual(
            await b.next("user_typing"),
            {"room_id": "room", "user_id": "ada", "username": "ada", "is_typing": True},
        )
        page = await self.ok(b, "history", {"room_id": "room", "after_seq": 3, "limit": 4})
        self.assertEqual(
            ([message["seq"] for message in page["messages"]], page["has_more"], page["seq"]),
            ([4, 5, 6, 7], True, 10),
        )
        page = await self.ok(b, "history", {"room_id": "room", "around_seq": 6, "limit": 4})
        self.assertEqual(
            (
                [message["seq"] for message in page["messages"]],
                page["has_more"],
                page["has_more_after"],
            ),
            ([4, 5, 6, 7], True, True),
        )

        status = await self.ok(a, "subscribe_status", {"target_user_id": "bob"})
        self.assertTrue(status["is_online"])
        self.assertTrue((await a.next("user_online"))["initial"])
        await self.ok(b, "leave", {"room_id": "room"})
        self.assertEqual(
            await a.next("user_left"), {"room_id": "room", "user_id": "bob", "username": "bob"}
        )
        await self.refused("not_in_room", b, "message", {"room_id": "room", "content": "x"})
        await b.close()
        offline = await a.next("user_offline")
        self.assertGreater(offline["version"], status["version"])
        await self.ok(a, "unsubscribe_status", {"target_user_id": "bob"})

    async def scenario_resume(self, kind, transports, backplane):
        near, far = await self.lab.nodes_on(backplane, 2)
        proxy = await self.lab.proxy(near)
        sender = await self.lab.user(AsyncClient, far.url, "sender", ["websocket"])
        client = await self.lab.user(kind, proxy.url, "reader", transports)
        epoch = (await self.ok(client, "join", {"room_id": "room"}))["epoch"]
        await self.ok(sender, "join", {"room_id": "room"})
        if len(transports) == 2:
            await eventually(lambda: client.io.transport() == "websocket", "the upgrade")
        for index in range(5):
            await self.ok(sender, "message", {"room_id": "room", "content": f"before {index}"})
        await client.next("message", lambda message: message["seq"] == 5)

        mark = len(client.entries)
        proxy.cut()
        await client.next("disconnect", after=mark)
        for index in range(20):
            await self.ok(sender, "message", {"room_id": "room", "content": f"during {index}"})
        proxy.heal()
        await client.next("connect", seconds=20, after=mark)
        await self.ok(client, "authenticate", {"user_id": "reader"})
        answer = await self.ok(
            client,
            "join",
            {"room_id": "room", "since_seq": client.messages("room")[-1]["seq"], "epoch": epoch},
        )
        self.assertEqual((answer["recovered"], answer["gap"]), (True, False))
        for index in range(5):
            await self.ok(sender, "message", {"room_id": "room", "content": f"after {index}"})
        await client.next("message", lambda message: message["content"] == "after 4")
        self.assert_no_hole(client.messages("room"), 1)
        self.assertEqual(len(client.messages("room")), 30)

        again = {"room_id": "room", "since_seq": 5, "epoch": epoch}
        answer = await self.ok(client, "join", {**again, "replay_limit": 4})
        self.assertEqual(
            (answer["recovered"], answer["gap"], answer["replayed"]), (False, True, 4)
        )
        await self.refused("bad_request", client, "join", {**again, "replay_limit": 0})


class Identity(LabTest):
    async def each(self):
        self.node = await self.lab.node(JWT_SECRET=SECRET, AUTH_TIMEOUT_SECS="1")
        for kind in KINDS.values():
            for transports in TRANSPORTS.values():
                yield kind, transports

    async def test_a_valid_token_is_accepted_in_the_handshake_and_in_authenticate(self):
        async for kind, transports in self.each():
            good = token(user_id="ada", username="Ada")
            for how in (
                {"auth": {"token": good}},
                {"headers": {"Authorization": f"Bearer {good}"}},
            ):
                client = await self.lab.client(kind).connect(
                    self.node.url, transports=transports, **how
                )
                self.assertEqual(
                    await client.next("authenticated"), {"user_id": "ada", "username": "Ada"}
                )
                await self.ok(client, "join", {"room_id": "room"})
            client = await self.lab.client(kind).connect(self.node.url, transports=transports)
            await self.refused("unauthorized", client, "join", {"room_id": "room"})
            await self.refused(
                "forbidden", client, "authenticate", {"token": good, "user_id": "bob"}
            )
            await self.ok(client, "authenticate", {"token": good})

    async def test_an_invalid_token_is_refused_with_its_code(self):
        async for kind, transports in self.each():
            for code, bad in (
                ("unauthorized", token(sub="ada", secret="another")),
                ("token_expired", token(sub="ada", exp=1)),
            ):
                for how in (
                    {"auth": {"token": bad}},
                    {"headers": {"Authorization": f"Bearer {bad}"}},
                ):
                    client = self.lab.client(kind)
                    try:
                        await client.connect(self.node.url, transports=transports, **how)
                        self.assertTrue(VERSION_4, "only version 4 does not wait for the answer")
                    except socketio.exceptions.ConnectionError:
                        self.assertFalse(VERSION_4)
                    data = await client.next("connect_error", lambda data: data is not None)
                    if VERSION_4:
                        self.assertIsInstance(data, str)
                    message = data["message"] if isinstance(data, dict) else data
                    self.assertTrue(message.startswith(f"{code}: "), message)
                    self.assertEqual(client.of("connect"), [])
                    # `connect()` of version 4 sets it even when the refusal came first.
                    self.assertTrue(VERSION_4 or not client.io.connected)

    @unittest.skipIf(VERSION_4, "reconnects when the server closes the transport after a DISCONNECT")
    async def test_clients_do_not_reconnect_after_their_identity_has_ended(self):
        async for kind, transports in self.each():
            expiring = await self.lab.client(kind).connect(
                self.node.url,
                transports=transports,
                auth={"token": token(sub="ada", exp=int(time.time()) + 2)},
            )
            self.assertEqual((await expiring.next("exception"))["code"], "token_expired")
            await expiring.next("disconnect")
            sentinel = await self.lab.client(kind).connect(self.node.url, transports=transports)
            await sentinel.next("disconnect")
            self.assertEqual(len(expiring.of("connect")), 1)

    async def test_clients_that_do_not_authenticate_in_time_reconnect(self):
        async for kind, transports in self.each():
            silent = await self.lab.client(kind).connect(self.node.url, transports=transports)
            await silent.next("disconnect")
            await eventually(
                lambda silent=silent: len(silent.of("connect")) == 2, "the client is back", 20
            )
            await self.ok(silent, "authenticate", {"token": token(sub="ada")})
            self.assertEqual(silent.of("exception"), [])


class Faults(LabTest):
    async def test_clients_of_a_drained_node_resume_on_another_one(self):
        draining, staying = await self.lab.nodes_on(
            "redis", 2, DRAIN_SECS="1", PRESENCE_GRACE_MS="8000"
        )
        proxy = await self.lab.proxy(draining)
        watcher = await self.lab.user(AsyncClient, staying.url, "watcher", ["websocket"])
        await self.ok(watcher, "join", {"room_id": "room"})
        clients = {}
        for name, kind in KINDS.items():
            clients[name] = await self.lab.user(kind, proxy.url, name, ["websocket"])
            await self.ok(clients[name], "join", {"room_id": "room"})
            await watcher.next("user_joined", lambda data, name=name: data["user_id"] == name)
        proxy.target = staying.port
        draining.terminate()
        for name, client in clients.items():
            self.assertIn("reconnect_in_ms", await client.next("going_away"))
            mark = await eventually(
                lambda client=client: len(client.of("disconnect")) and len(client.entries), "closed"
            )
            await eventually(lambda client=client: len(client.of("connect")) == 2, "back", 20)
            await self.ok(client, "authenticate", {"user_id": name})
            self.assertTrue(
                (await self.ok(client, "join", {"room_id": "room", "since_seq": 0}))["recovered"]
            )
            self.assertGreater(mark, 0)
        self.assertEqual(draining.wait(DEADLINE_SECS), 0)
        await self.ok(watcher, "message", {"room_id": "room", "content": "sentinel"})
        for client in clients.values():
            await client.next("message", lambda message: message["content"] == "sentinel")
        self.assertEqual(watcher.of("user_left"), [])
        self.assertEqual(get(f"{staying.url}/rooms/room/users")[1]["total"], 3)

    async def test_bad_payloads_are_refused_and_close_no_connection(self):
        node = await self.lab.node()
        for kind in KINDS.values():
            for transports in TRANSPORTS.values():
                client = await self.lab.user(kind, node.url, "ada", transports)
                for event in (
                    "join",
                    "leave",
                    "message",
                    "history",
                    "typing",
                    "subscribe_status",
                    "unsubscribe_status",
                ):
                    for bad in (
                        None,
                        5,
                        "text",
                        [],
                        {},
                        b"bytes",
                        {"room_id": b"bytes", "target_user_id": b"bytes"},
                        {"room_id": 5, "target_user_id": []},
                    ):
                        await self.refused("bad_request", client, event, bad)
                await self.refused("unknown_event", client, "no_such_event", {"a": b"bytes"})
                await self.ok(client, "join", {"room_id": "room"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
