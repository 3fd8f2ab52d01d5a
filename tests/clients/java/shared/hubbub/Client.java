package hubbub;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.socket.client.Ack;
import io.socket.client.IO;
import io.socket.client.Manager;
import io.socket.client.Socket;
import java.lang.reflect.Field;
import java.net.URISyntaxException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import org.json.JSONException;
import org.json.JSONObject;

/** A Socket.IO client with the record of everything that it received. */
final class Client {
    /** The events of a room that have numbers. */
    private static final List<String> NUMBERED = List.of(
        "message", "message_edited", "message_deleted", "reactions_changed", "message_pinned",
        "message_unpinned");

    private static final String[] OTHER_EVENTS = {
        "authenticated", "room_users", "user_joined", "user_left", "read_receipt", "going_away",
        "exception", "connect", "disconnect", "connect_error", "error",
    };

    /** One received event with its first argument, or null. */
    record Event(String name, Object data) {}

    final Socket socket;
    private final List<Event> seen = new ArrayList<>();

    /** Creates a client that is not connected yet. */
    Client(String url, IO.Options options) throws URISyntaxException {
        options.forceNew = true;
        options.reconnectionDelay = 100;
        options.reconnectionDelayMax = 500;
        socket = IO.socket(url, options);
        List<String> names = new ArrayList<>(NUMBERED);
        names.addAll(List.of(OTHER_EVENTS));
        for (String name : names) {
            socket.on(name, arguments -> record(name, arguments.length > 0 ? arguments[0] : null));
        }
    }

    /** Adds an event to the record, also one that a test makes up. */
    synchronized void record(String name, Object data) {
        seen.add(new Event(name, data));
    }

    /** All recorded events of that name, in the order of their arrival. */
    synchronized List<Object> of(String name) {
        return seen.stream().filter(event -> event.name.equals(name)).map(Event::data).toList();
    }

    private synchronized String lastEntries() {
        return String.valueOf(seen.subList(Math.max(0, seen.size() - 10), seen.size()));
    }

    Client connected() throws Exception {
        socket.connect();
        next("connect");
        return this;
    }

    /** Waits until `count` events of that name have arrived, and returns the last of these. */
    Object nth(String name, int count) throws Exception {
        try {
            return Wait.until(count + ". " + name, Wait.DEADLINE_MS, () -> {
                List<Object> found = of(name);
                return found.size() < count ? null : new Event(name, found.get(count - 1));
            }).data;
        } catch (AssertionError late) {
            throw new AssertionError(late.getMessage() + "; seen: " + lastEntries());
        }
    }

    Object next(String name) throws Exception {
        return nth(name, 1);
    }

    /** Waits for an event whose payload satisfies a condition. */
    JSONObject next(String name, Predicate<JSONObject> condition) throws Exception {
        try {
            return Wait.until(name, Wait.DEADLINE_MS, () -> of(name).stream()
                    .map(JSONObject.class::cast).filter(condition).findFirst().orElse(null));
        } catch (AssertionError late) {
            throw new AssertionError(late.getMessage() + "; seen: " + lastEntries());
        }
    }

    /** Emits an event; its acknowledgement completes the future. */
    CompletableFuture<JSONObject> emit(String event, Object payload) {
        CompletableFuture<JSONObject> answer = new CompletableFuture<>();
        Ack ack = arguments -> answer.complete((JSONObject) arguments[0]);
        socket.emit(event, new Object[] {payload}, ack);
        return answer;
    }

    JSONObject ack(String event, Object payload) throws Exception {
        CompletableFuture<JSONObject> answer = emit(event, payload);
        Wait.untilTrue("ack of " + event + "; seen: " + lastEntries(), Wait.DEADLINE_MS,
                answer::isDone);
        return answer.get(0, TimeUnit.MILLISECONDS);
    }

    /** Emits an event, and returns its acknowledgement, which must be positive. */
    JSONObject request(String event, JSONObject payload) throws Exception {
        JSONObject answer = ack(event, payload);
        assertTrue(answer.getBoolean("ok"), event + " " + payload + " → " + answer);
        return answer;
    }

    /** Emits an event, which must be refused with that code. */
    void expectRefusal(String code, String event, Object payload) throws Exception {
        JSONObject answer = ack(event, payload);
        assertEquals(code, answer.optString("code"), event + " → " + answer);
        assertTrue(!answer.getBoolean("ok") && !answer.getString("error").isEmpty());
    }

    JSONObject join(String room) throws Exception {
        return request("join", object("room_id", room));
    }

    JSONObject send(String room, String content) throws Exception {
        return request("message", object("room_id", room, "content", content));
    }

    /** The numbers of all messages that have arrived. */
    List<Integer> seqs() {
        return of("message").stream().map(data -> ((JSONObject) data).optInt("seq")).toList();
    }

    /** The numbers of all events of a room that have arrived. */
    synchronized List<Integer> numbers(String room) {
        return seen.stream().filter(event -> NUMBERED.contains(event.name))
                .map(event -> (JSONObject) event.data)
                .filter(data -> room.equals(data.optString("room_id")))
                .map(data -> data.optInt("seq")).toList();
    }

    /** Everything that has arrived. */
    @Override
    public synchronized String toString() {
        return seen.toString();
    }

    /** Rejoins after each further `connect`, as an application does, and records `resumed`. */
    void resumeOnReconnect(String user, String room, String epoch) {
        socket.on("connect", arguments -> {
            List<Integer> seqs = seqs();
            int since = seqs.isEmpty() ? 0 : seqs.get(seqs.size() - 1);
            emit("authenticate", object("user_id", user));
            emit("join", object("room_id", room, "since_seq", since, "epoch", epoch))
                    .thenAccept(answer -> record("resumed", answer));
        });
    }

    /** The name of the transport in use. The library has no public access to it. */
    String transport() throws ReflectiveOperationException {
        Object engine = field(Manager.class, "engine", socket.io());
        Object transport = field(engine.getClass().getSuperclass(), "transport", engine);
        return transport.getClass().getSimpleName().contains("Polling") ? "polling" : "websocket";
    }

    private static Object field(Class<?> owner, String name, Object object)
            throws ReflectiveOperationException {
        Field field = owner.getDeclaredField(name);
        field.setAccessible(true);
        return field.get(object);
    }

    /** A JSON object from alternating keys and values. */
    static JSONObject object(Object... entries) {
        JSONObject object = new JSONObject();
        try {
            for (int index = 0; index < entries.length; index += 2) {
                object.put((String) entries[index], entries[index + 1]);
            }
        } catch (JSONException impossible) {
            throw new IllegalArgumentException(impossible);
        }
        return object;
    }
}
