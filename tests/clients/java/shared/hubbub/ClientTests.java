package hubbub;

import static hubbub.Client.object;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.socket.client.IO;
import io.socket.client.Manager;
import io.socket.client.Socket;
import io.socket.emitter.Emitter;
import io.socket.thread.EventThread;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.json.JSONException;
import org.json.JSONObject;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The chat with one version of the Java client, over every transport. */
public abstract class ClientTests {
    /** A refused CONNECT as the application sees it; the last two are null before version 2. */
    public record Refusal(String message, String code, String reason) {}

    /** Puts a token where this version sends it in the handshake. */
    protected abstract void putToken(IO.Options options, String token);

    /** Reads the argument of the event that reports a refused CONNECT. */
    protected abstract Refusal refusal(Object data) throws JSONException;

    /** The name of that event. */
    protected abstract String refusalEvent();

    private static Lab shared;
    private static Node open;
    private static Node jwt;
    private Lab lab;

    @BeforeAll
    static void startNodes() throws Exception {
        shared = new Lab();
        open = shared.node(Map.of());
        jwt = shared.node(Map.of("JWT_SECRET", Token.SECRET));
    }

    @AfterAll
    static void endNodes() throws Exception {
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
    void members_receive_the_same_messages_in_one_order(Transport transport) throws Exception {
        String room = "chat " + transport;
        Client ada = lab.user(open, "ada", transport);
        Client bob = lab.user(open, "bob", transport);
        assertEquals("ada", ((JSONObject) ada.next("authenticated")).getString("user_id"));
        JSONObject joined = ada.join(room);
        assertEquals(1, joined.getInt("total"));
        assertEquals(2, bob.join(room).getInt("total"));
        JSONObject users = (JSONObject) bob.next("room_users");
        assertEquals(2, users.getJSONArray("users").length());
        assertEquals("bob", ((JSONObject) ada.next("user_joined")).getString("user_id"));

        for (int index = 0; index < 5; index++) {
            JSONObject ack = (index % 2 == 0 ? ada : bob).send(room, "text " + index);
            assertEquals(index + 1, ack.getInt("seq"));
            assertEquals(joined.getString("epoch"), ack.getString("epoch"));
        }
        for (Client client : List.of(ada, bob)) {
            JSONObject last = client.next("message", message -> message.optInt("seq") == 5);
            assertEquals("text 4", last.getString("content"));
            assertEquals(numbers(5), client.seqs());
        }

        JSONObject page = bob.request("history", object("room_id", room, "limit", 2));
        assertEquals(2, page.getJSONArray("messages").length());
        bob.request("leave", object("room_id", room));
        bob.expectRefusal("not_in_room", "message", object("room_id", room, "content", "late"));
        assertEquals("bob", ((JSONObject) ada.next("user_left")).getString("user_id"));
        bob.expectRefusal("unknown_event", "no_such_event", object());
        assertEquals(List.of(), ada.of("disconnect"));
    }

    @ParameterizedTest
    @EnumSource
    void a_valid_token_authenticates(Transport transport) throws Exception {
        IO.Options options = new IO.Options();
        putToken(options, Token.of("ada"));
        Client handshake = lab.client(jwt.url, transport, options).connected();
        assertEquals("ada", ((JSONObject) handshake.next("authenticated")).getString("user_id"));
        handshake.join("tokens");

        Client header = lab.client(jwt.url, transport);
        putHeader(header, "Authorization", "Bearer " + Token.of("bob"));
        assertEquals("bob", ((JSONObject) header.connected().next("authenticated"))
                .getString("user_id"));
        header.join("tokens");

        Client event = lab.client(jwt.url, transport).connected();
        event.expectRefusal("unauthorized", "join", object("room_id", "tokens"));
        event.expectRefusal("unauthorized", "authenticate", object("token", "not.a.token"));
        event.request("authenticate", object("token", Token.of("eve")));
        event.join("tokens");
    }

    @Test
    void a_refused_token_is_reported_with_its_code_and_never_tried_again() throws Exception {
        // The node closes the transport of a refused client after this time.
        Node node = lab.node(Map.of("JWT_SECRET", Token.SECRET, "AUTH_TIMEOUT_SECS", "1"));
        List<Client> clients = new ArrayList<>();
        for (Transport transport : Transport.values()) {
            String forged = Token.of("ada", 60, "another-secret");
            String expired = Token.of("ada", -60, Token.SECRET);
            clients.add(expectRefusedToken(node, transport, forged, "unauthorized", "signature"));
            clients.add(expectRefusedToken(node, transport, expired, "token_expired", "expired"));
        }
        // Two whole time-outs: one closes the refused transports, and a client that reconnects
        // then, after at most 150 ms, has done so before the end of the other.
        for (int turn = 0; turn < 2; turn++) {
            IO.Options options = new IO.Options();
            options.reconnection = false;
            Client sentinel = lab.client(node.url, Transport.WEBSOCKET, options).connected();
            sentinel.next("disconnect");
        }
        for (Client client : clients) {
            assertEquals(1, client.of(refusalEvent()).size(), "a client reconnected");
            assertEquals(List.of(), client.of("authenticated"));
            assertFalse(client.socket.connected());
        }
    }

    private Client expectRefusedToken(
            Node node, Transport transport, String token, String code, String reason)
            throws Exception {
        IO.Options options = new IO.Options();
        putToken(options, token);
        Client client = lab.client(node.url, transport, options);
        client.socket.connect();
        Object data = client.next(refusalEvent());
        Refusal refusal = refusal(data);
        assertTrue(refusal.message.startsWith(code + ": "), refusal.message);
        if (refusalEvent().equals("connect_error")) {
            assertEquals(code, refusal.code, String.valueOf(data));
            assertEquals(reason, refusal.reason, String.valueOf(data));
        }
        return client;
    }

    @ParameterizedTest
    @EnumSource
    void another_namespace_is_refused_and_the_connection_stays(Transport transport)
            throws Exception {
        Client other = lab.client(open.url + "/admin", transport);
        Socket main = other.socket.io().socket("/");
        main.connect();
        other.socket.connect();
        assertEquals("Invalid namespace", refusal(other.next(refusalEvent())).message);

        CompletableFuture<JSONObject> answer = new CompletableFuture<>();
        main.emit("authenticate", new Object[] {object("user_id", "main")},
                arguments -> answer.complete((JSONObject) arguments[0]));
        assertTrue(answer.get(Wait.DEADLINE_MS, TimeUnit.MILLISECONDS).getBoolean("ok"));
        main.disconnect();
    }

    @ParameterizedTest
    @EnumSource
    void binary_attachments_are_refused_and_the_connection_stays(Transport transport)
            throws Exception {
        String room = "binary " + transport;
        Client client = lab.user(open, "ada", transport);
        client.join(room);
        // Over polling, version 2 breaks the base64 text into lines of 76 characters, and ends it
        // with a line break. The lengths give one line, several, and two that are exactly full.
        for (int length : new int[] {0, 1, 56, 57, 58, 114, 200, 20_000}) {
            JSONObject payload = object("file", new byte[length]);
            client.expectRefusal(
                    "bad_request",
                    "message",
                    object("room_id", room, "content", "x", "payload", payload));
        }
        assertEquals(1, client.send(room, "still connected").getInt("seq"));
        assertEquals(List.of(), client.of("disconnect"));
    }

    @ParameterizedTest
    @EnumSource
    void messages_sent_at_once_all_arrive(Transport transport) throws Exception {
        String room = "burst " + transport;
        Client client = lab.user(open, "ada", transport);
        client.join(room);
        String content = "x".repeat(15_000);
        List<CompletableFuture<JSONObject>> acks = new ArrayList<>();
        CompletableFuture<Void> emitted = new CompletableFuture<>();
        // On the library's own thread all emits come before the first packet is written. Over
        // polling, all but the first are in one POST, of 1.3 MB.
        EventThread.exec(() -> {
            for (int index = 0; index < 90; index++) {
                acks.add(client.emit("message", object("room_id", room, "content", content)));
            }
            emitted.complete(null);
        });
        emitted.get(Wait.DEADLINE_MS, TimeUnit.MILLISECONDS);
        List<Integer> seqs = new ArrayList<>();
        for (CompletableFuture<JSONObject> ack : acks) {
            Wait.untilTrue("an ack of 90; disconnects: " + client.of("disconnect"),
                    Wait.DEADLINE_MS, ack::isDone);
            seqs.add(ack.get().getInt("seq"));
        }
        assertEquals(numbers(90), seqs);
        client.next("message", message -> message.optInt("seq") == 90);
        assertEquals(numbers(90), client.seqs());
        assertEquals(List.of(), client.of("disconnect"));
    }

    /** How a node ends. */
    private interface End {
        void of(Node node, Client reader) throws Exception;
    }

    @ParameterizedTest
    @EnumSource
    void a_client_resumes_after_its_node_was_killed(Transport transport) throws Exception {
        resume(transport, (node, reader) -> node.kill());
    }

    @ParameterizedTest
    @EnumSource
    void a_client_resumes_after_its_node_was_drained(Transport transport) throws Exception {
        resume(transport, (node, reader) -> {
            assertEquals(0, node.terminate());
            JSONObject announcement = (JSONObject) reader.next("going_away");
            assertTrue(announcement.getInt("reconnect_in_ms") >= 0);
        });
    }

    private void resume(Transport transport, End end) throws Exception {
        String room = "resume";
        Map<String, String> settings = Map.of("REDIS_URL", lab.redis().url, "DRAIN_SECS", "1");
        Node near = lab.node(settings);
        Node far = lab.node(settings);
        Client sender = lab.user(far, "sender", Transport.WEBSOCKET);
        sender.join(room);
        Client reader = lab.user(near, "reader", transport);
        reader.resumeOnReconnect("reader", room, reader.join(room).getString("epoch"));
        for (int index = 0; index < 5; index++) {
            sender.send(room, "before " + index);
        }
        reader.next("message", message -> message.optInt("seq") == 5);

        end.of(near, reader);
        reader.next("disconnect");
        for (int index = 0; index < 20; index++) {
            sender.send(room, "during " + index);
        }
        near.start();
        JSONObject resumed = (JSONObject) reader.next("resumed");
        assertTrue(resumed.getBoolean("ok"), resumed.toString());
        assertTrue(resumed.getBoolean("recovered"), resumed.toString());
        assertEquals(false, resumed.getBoolean("gap"));
        sender.send(room, "after");
        reader.next("message", message -> message.optInt("seq") == 26);
        assertEquals(numbers(26), reader.seqs());
    }

    private static List<Integer> numbers(int last) {
        return IntStream.rangeClosed(1, last).boxed().toList();
    }

    /** Adds a header to every request of a client. */
    @SuppressWarnings("unchecked")
    private static void putHeader(Client client, String name, String value) {
        Emitter.Listener add = headers ->
                ((Map<String, List<String>>) headers[0]).put(name, List.of(value));
        client.socket.io().on(Manager.EVENT_TRANSPORT, transport ->
                ((Emitter) transport[0]).on("requestHeaders", add));
    }
}
