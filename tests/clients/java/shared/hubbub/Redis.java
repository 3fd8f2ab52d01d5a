package hubbub;

import java.io.IOException;
import java.net.Socket;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** A Redis server without persistence. */
final class Redis extends Child {
    final String url;

    Redis(Path directory) throws Exception {
        super(directory);
        int port = freePort();
        url = "redis://127.0.0.1:" + port;
        String redis = "redis-server --bind 127.0.0.1 --appendonly no --port " + port + " --save";
        List<String> command = new java.util.ArrayList<>(List.of(redis.split(" ")));
        command.add("");
        spawn(command, Map.of());
        Wait.untilTrue("Redis listens", Wait.DEADLINE_MS, () -> {
            try (Socket connection = new Socket("127.0.0.1", port)) {
                return connection.isConnected();
            } catch (IOException refused) {
                return false;
            }
        });
    }
}
