package hubbub;

import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** A hubbub node, which keeps its port over restarts. */
final class Node extends Child {
    final String url;
    private final Map<String, String> environment;

    Node(Path directory, Map<String, String> settings) throws Exception {
        super(directory);
        int port = freePort();
        url = "http://127.0.0.1:" + port;
        environment = new HashMap<>(settings);
        environment.put("SERVER_HOST", "127.0.0.1");
        environment.put("SERVER_PORT", String.valueOf(port));
        if (!settings.containsKey("JWT_SECRET")) {
            environment.put("AUTH_MODE", "open");
        }
        start();
    }

    /** Starts the node, for the first time or again, and waits until it is ready. */
    void start() throws Exception {
        spawn(List.of(System.getenv("HUBBUB_BIN")), environment);
        Wait.untilTrue("a node is ready", 15_000, () -> {
            if (!process.isAlive()) {
                throw new AssertionError("the node ended:\n" + tail());
            }
            return isReady();
        });
    }

    private boolean isReady() {
        try {
            URI readyz = URI.create(url + "/readyz");
            HttpURLConnection request = (HttpURLConnection) readyz.toURL().openConnection();
            return request.getResponseCode() == 200;
        } catch (IOException refused) {
            return false;
        }
    }
}
