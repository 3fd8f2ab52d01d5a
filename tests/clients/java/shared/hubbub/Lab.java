package hubbub;

import io.socket.client.IO;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** Owns the processes and clients of one test, and ends all of them. */
final class Lab implements AutoCloseable {
    private final List<Client> clients = new ArrayList<>();
    private final List<Child> children = new ArrayList<>();

    Node node(Map<String, String> settings) throws Exception {
        Node node = new Node(directory(), settings);
        children.add(node);
        return node;
    }

    Redis redis() throws Exception {
        Redis redis = new Redis(directory());
        children.add(redis);
        return redis;
    }

    /** A client that is not connected yet. */
    Client client(String url, Transport transport, IO.Options options) throws Exception {
        options.transports = transport.names;
        Client client = new Client(url, options);
        clients.add(client);
        return client;
    }

    Client client(String url, Transport transport) throws Exception {
        return client(url, transport, new IO.Options());
    }

    /** A connected and authenticated client, whose upgrade is complete. */
    Client user(Node node, String user, Transport transport) throws Exception {
        Client client = client(node.url, transport).connected();
        client.request("authenticate", Client.object("user_id", user));
        Wait.untilTrue("the transport is " + transport.last(), Wait.DEADLINE_MS,
                () -> client.transport().equals(transport.last()));
        return client;
    }

    private static Path directory() throws IOException {
        return Files.createTempDirectory("hubbub-clients-");
    }

    @Override
    public void close() throws IOException {
        clients.forEach(client -> client.socket.disconnect());
        for (Child child : children) {
            child.kill();
            try (Stream<Path> files = Files.walk(child.directory)) {
                files.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
            }
        }
    }
}
