package hubbub;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A child process of the test, with its log in a file. */
class Child {
    private static int nextPort = 10_000 + (int) (ProcessHandle.current().pid() % 800) * 25;

    protected final Path directory;
    protected Process process;

    Child(Path directory) {
        this.directory = directory;
        Runtime.getRuntime().addShutdownHook(new Thread(this::kill));
    }

    /**
     * Returns a free port below the ephemeral range, so that no outgoing connection takes it before
     * the child binds it, or while the child restarts.
     */
    static synchronized int freePort() {
        while (true) {
            int port = nextPort;
            nextPort = port >= 31_000 ? 10_000 : port + 1;
            try (ServerSocket probe = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
                return probe.getLocalPort();
            } catch (IOException taken) {
                // Try the next port.
            }
        }
    }

    protected void spawn(List<String> command, Map<String, String> environment) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(command);
        builder.directory(directory.toFile());
        builder.environment().clear();
        builder.environment().put("PATH", System.getenv("PATH"));
        builder.environment().putAll(environment);
        builder.redirectErrorStream(true);
        builder.redirectOutput(ProcessBuilder.Redirect.appendTo(log().toFile()));
        process = builder.start();
    }

    /** Sends SIGTERM and returns the exit code. */
    int terminate() throws InterruptedException {
        process.destroy();
        if (!process.waitFor(Wait.DEADLINE_MS, TimeUnit.MILLISECONDS)) {
            throw new AssertionError("the process has not ended after SIGTERM");
        }
        return process.exitValue();
    }

    /** Sends SIGKILL and waits for the end. */
    void kill() {
        if (process != null) {
            process.destroyForcibly();
            process.onExit().join();
        }
    }

    Path log() {
        return directory.resolve("log");
    }

    /** The last lines of the log. */
    String tail() throws IOException {
        List<String> lines = Files.readAllLines(log());
        return String.join("\n", lines.subList(Math.max(0, lines.size() - 25), lines.size()));
    }
}
