"""Messages that change, with the Python client: asyncio and threads, every transport."""

import unittest

from harness import AsyncClient
from test_python import LabTest, for_each_client


def about(message):
    """Whether an event is about a message."""

    def check(event):
        return message["id"] in (event.get("id"), event.get("message", {}).get("id"))

    return check


@for_each_client
class Changes(LabTest):
    # The nodes on Redis have no database here.
    BACKPLANES = ["embedded"]

    async def scenario_changes(self, kind, transports, backplane):
        [node] = await self.lab.nodes_on(backplane, 1)
        a = await self.lab.user(kind, node.url, "ada", transports)
        b = await self.lab.user(kind, node.url, "bob", transports)
        for client in (a, b):
            await self.ok(client, "join", {"room_id": "room"})
        first = await self.ok(a, "message", {"room_id": "room", "content": "first"})
        target = {"room_id": "room", "id": first["id"]}
        answer = {"ok": True, **target}

        reply = {"room_id": "room", "content": "for @here", "thread_id": first["id"]}
        await self.ok(b, "message", reply)
        for client in (a, b):
            event = await client.next("message", lambda event: event["content"] == "for @here")
            self.assertEqual((event["thread_id"], event["mentions"]), (first["id"], ["ada"]))

        edited = await self.ok(
            a, "edit_message", {**target, "content": "second", "version": first["seq"]}
        )
        self.assertEqual(edited, {**answer, "seq": edited["seq"], "version": edited["seq"]})
        for client in (a, b):
            event = await client.next("message_edited")
            message = event["message"]
            self.assertEqual((event["seq"], message["seq"]), (edited["seq"], first["seq"]))
            self.assertEqual((message["content"], message["version"]), ("second", edited["seq"]))
            self.assertIn("edited_at", message)
        stale = {**target, "content": "third", "version": first["seq"]}
        conflict = await a.call("edit_message", stale)
        self.assertEqual((conflict["ok"], conflict["code"]), (False, "conflict"))
        self.assertEqual(conflict["message"]["content"], "second")
        await self.refused("forbidden", b, "edit_message", {**target, "content": "not mine"})

        self.assertEqual(await self.ok(b, "react", {**target, "emoji": "👍"}), answer)
        event = await a.next("reactions_changed", about(first))
        self.assertEqual(
            event["reactions"], [{"emoji": "👍", "count": 1, "user_ids": ["bob"]}]
        )
        await self.ok(b, "react", {**target, "emoji": "👍", "on": False})
        await a.next("reactions_changed", lambda event: event["reactions"] == [])
        for name in ("pin", "unpin", "pin"):
            pinned = await self.ok(b, f"{name}_message", target)
            event = await a.next(
                f"message_{name}ned", lambda event, seq=pinned["seq"]: event["seq"] == seq
            )
            self.assertEqual((event["target_seq"], event["user_id"]), (first["seq"], "bob"))

        last = await self.ok(a, "message", {"room_id": "room", "content": "last"})
        read = await self.ok(b, "read", {"room_id": "room", "seq": first["seq"]})
        self.assertEqual((read["last_read_seq"], read["unread"]), (first["seq"], 1))
        read = await self.ok(b, "read", {"room_id": "room", "seq": last["seq"]})
        self.assertEqual((read["last_read_seq"], read["unread"]), (last["seq"], 0))
        read = await self.ok(b, "read", {"room_id": "room", "seq": 1})
        self.assertEqual(read["last_read_seq"], last["seq"])
        await a.next("read_receipt", lambda receipt: receipt["last_read_seq"] == last["seq"])

        secret = await self.ok(a, "message", {"room_id": "room", "content": "a secret"})
        gone = {"room_id": "room", "id": secret["id"]}
        deleted = await self.ok(a, "delete_message", gone)
        for client in (a, b):
            event = await client.next("message_deleted", about(secret))
            self.assertEqual(
                (event["seq"], event["target_seq"], event["deleted_by"]),
                (deleted["seq"], secret["seq"], "ada"),
            )
        self.assertEqual(await self.ok(a, "delete_message", gone), deleted)
        await self.refused("message_deleted", a, "edit_message", {**gone, "content": "x"})
        await self.refused("message_deleted", a, "react", {**gone, "emoji": "x"})

        late = await self.lab.user(kind, node.url, "late", transports)
        rooms = {"room": {"since_seq": 0, "epoch": first["epoch"]}}
        synced = (await self.ok(late, "sync", {"rooms": rooms}))["rooms"]["room"]
        self.assertEqual((synced["recovered"], synced["replayed"]), (True, deleted["seq"]))
        await late.next("message_deleted", lambda event: event["seq"] == deleted["seq"])
        numbered = late.numbered("room")
        self.assertEqual(
            [event["seq"] for _, event in numbered], list(range(1, deleted["seq"] + 1))
        )
        self.assertEqual(numbered[0][1]["content"], "second")
        self.assertEqual(numbered[secret["seq"] - 1][0], "message_deleted")
        self.assertNotIn("a secret", str(numbered))

    async def scenario_resume_over_changes(self, kind, transports, backplane):
        [node] = await self.lab.nodes_on(backplane, 1)
        proxy = await self.lab.proxy(node)
        sender = await self.lab.user(AsyncClient, node.url, "sender", ["websocket"])
        client = await self.lab.user(kind, proxy.url, "reader", transports)
        for one in (sender, client):
            await self.ok(one, "join", {"room_id": "room"})
        before = await self.ok(sender, "message", {"room_id": "room", "content": "before"})
        await client.next("message")

        mark = len(client.entries)
        proxy.cut()
        await client.next("disconnect", after=mark)
        missed = await self.ok(sender, "message", {"room_id": "room", "content": "missed"})
        short = await self.ok(sender, "message", {"room_id": "room", "content": "short-lived"})
        edit = {"room_id": "room", "id": missed["id"], "content": "edited"}
        edited = await self.ok(sender, "edit_message", edit)
        deletion = {"room_id": "room", "id": short["id"]}
        deleted = await self.ok(sender, "delete_message", deletion)
        proxy.heal()
        await client.next("connect", seconds=20, after=mark)
        await self.ok(client, "authenticate", {"user_id": "reader"})
        position = {"since_seq": before["seq"], "epoch": before["epoch"]}
        answer = await self.ok(client, "join", {"room_id": "room", **position})
        self.assertEqual((answer["recovered"], answer["replayed"]), (True, 4))
        await client.next("message_deleted", lambda event: event["seq"] == deleted["seq"])
        shown = [(name, event["seq"]) for name, event in client.numbered("room")[1:]]
        self.assertEqual(
            shown,
            [
                ("message", missed["seq"]),
                ("message_deleted", short["seq"]),
                ("message_edited", edited["seq"]),
                ("message_deleted", deleted["seq"]),
            ],
        )
        self.assertEqual(client.messages("room")[-1]["content"], "edited")
        self.assertNotIn("short-lived", str(client.entries))


if __name__ == "__main__":
    unittest.main(verbosity=2)
