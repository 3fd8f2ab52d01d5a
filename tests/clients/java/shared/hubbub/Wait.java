package hubbub;

import java.util.concurrent.Callable;

/** Waiting for a condition with a deadline. */
final class Wait {
    /** The deadline for anything that should happen immediately. */
    static final long DEADLINE_MS = 8_000;

    /** Polls until the probe returns a value other than null, and returns that value. */
    static <T> T until(String description, long milliseconds, Callable<T> probe) throws Exception {
        long deadline = System.nanoTime() + milliseconds * 1_000_000;
        while (true) {
            T value = probe.call();
            if (value != null) {
                return value;
            }
            if (System.nanoTime() > deadline) {
                throw new AssertionError(description + ": not within " + milliseconds + " ms");
            }
            Thread.sleep(10);
        }
    }

    static void untilTrue(String description, long milliseconds, Callable<Boolean> probe)
            throws Exception {
        until(description, milliseconds, () -> probe.call() ? true : null);
    }

    private Wait() {}
}
