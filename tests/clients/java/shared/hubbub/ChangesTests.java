package hubbub;

import static hubbub.Client.object;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.json.JSONException;
import org.json.JSONObject;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Messages that change, with one version of the Java client, over every transport. */
public abstract class ChangesTests {
    private static Lab shared;
    private static Node node;
    private Lab lab;

    @BeforeAll
    static void startNode() throws Exception {
        shared = new Lab();
        node = shared.node(Map.of());
    }

    @AfterAll
    static void stopNode() throws Exception {
        shared.close();
    }

    @BeforeEach
    void openLab() {
        lab = new Lab();
    }

    @AfterEach
    void closeLab() throws Exception {
        lab.close();
    }

    @ParameterizedTest
    @EnumSource
    void changes_are_acknowledged_and_reach_the_others(Transport transport) throws Exception {
        String room = "changes " + transport;
        Client ada = lab.user(node, "ada", transport);
        Client bob = lab.user(node, "bob", transport);
        ada.join(room);
        bob.join(room);
        JSONObject first = ada.send(room, "first");
        String id = first.getString("id");
        int seq = first.getInt("seq");

        bob.request("message", object("room_id", room, "content", "for @here", "thread_id", id));
        JSONObject reply = ada.next("message", event -> event.has("thread_id"));
        assertEquals(id, reply.getString("thread_id"));
        assertEquals("[\"ada\"]", reply.getJSONArray("mentions").toString());

        JSONObject edit = object("room_id", room, "id", id, "content", "second", "version", seq);
        int version = ada.request("edit_message", edit).getInt("version");
        for (Client client : List.of(ada, bob)) {
            JSONObject event = (JSONObject) client.next("message_edited");
            assertEquals(version, event.getInt("seq"));
            assertEquals(seq, event.getJSONObject("message").getInt("seq"));
            assertEquals("second", event.getJSONObject("message").getString("content"));
        }
        // The same edit once more would change nothing, and succeed.
        edit.put("content", "third");
        JSONObject conflict = ada.ack("edit_message", edit);
        assertEquals("conflict", conflict.getString("code"));
        assertEquals(version, conflict.getJSONObject("message").getInt("version"));
        bob.expectRefusal("forbidden", "edit_message", edit);

        JSONObject target = object("room_id", room, "id", id);
        bob.request("react", object("room_id", room, "id", id, "emoji", "👍"));
        JSONObject reactions = (JSONObject) ada.next("reactions_changed");
        assertEquals(seq, reactions.getInt("target_seq"));
        JSONObject reaction = reactions.getJSONArray("reactions").getJSONObject(0);
        assertEquals("👍", reaction.getString("emoji"));
        assertEquals("[\"bob\"]", reaction.getJSONArray("user_ids").toString());
        for (String name : List.of("pin", "unpin")) {
            int announced = bob.request(name + "_message", target).getInt("seq");
            JSONObject event = (JSONObject) ada.next("message_" + name + "ned");
            assertEquals(announced, event.getInt("seq"));
            assertEquals("bob", event.getString("user_id"));
        }

        JSONObject read = bob.request("read", object("room_id", room, "seq", seq));
        assertEquals(seq, read.getInt("last_read_seq"));
        assertEquals(0, read.getInt("unread"));
        assertEquals(seq, ((JSONObject) ada.next("read_receipt")).getInt("last_read_seq"));

        int deleted = ada.request("delete_message", target).getInt("seq");
        for (Client client : List.of(ada, bob)) {
            JSONObject event = (JSONObject) client.next("message_deleted");
            assertEquals(deleted, event.getInt("seq"));
            assertEquals(id, event.getString("id"));
        }
        assertEquals(deleted, ada.request("delete_message", target).getInt("seq"));
        ada.expectRefusal("message_deleted", "pin_message", target);
    }

    @ParameterizedTest
    @EnumSource
    void a_client_that_comes_later_gets_the_newest_forms(Transport transport) throws Exception {
        String room = "later " + transport;
        Client ada = lab.user(node, "ada", transport);
        ada.join(room);
        Client bob = lab.user(node, "bob", transport);
        bob.join(room);
        bob.socket.disconnect();
        JSONObject kept = ada.send(room, "first");
        JSONObject gone = ada.send(room, "a secret");
        JSONObject edit = target(room, kept).put("content", "second");
        int version = ada.request("edit_message", edit).getInt("version");
        int head = ada.request("delete_message", target(room, gone)).getInt("seq");
        JSONObject position = object("since_seq", 0, "epoch", kept.getString("epoch"));

        // One that was there before resumes by `join`, and a new one by `sync`.
        bob.socket.connect();
        bob.nth("connect", 2);
        bob.request("authenticate", object("user_id", "bob"));
        bob.request("join", position.put("room_id", room));
        Client cyd = lab.user(node, "cyd", transport);
        JSONObject rooms = object("rooms", object(room, position));
        JSONObject synced = cyd.request("sync", rooms).getJSONObject("rooms").getJSONObject(room);
        assertTrue(synced.getBoolean("recovered"), synced.toString());
        assertEquals(head, synced.getInt("replayed"));
        for (Client client : List.of(bob, cyd)) {
            client.next("message_deleted", event -> event.optInt("seq") == head);
            assertEquals(IntStream.rangeClosed(1, head).boxed().toList(), client.numbers(room));
            JSONObject message = (JSONObject) client.next("message");
            assertEquals("second", message.getString("content"));
            assertEquals(version, message.getInt("version"));
            assertEquals(1, client.of("message").size());
            assertFalse(client.toString().contains("a secret"), client.toString());
        }
    }

    private static JSONObject target(String room, JSONObject message) throws JSONException {
        return object("room_id", room, "id", message.getString("id"));
    }
}
