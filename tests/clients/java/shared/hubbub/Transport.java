package hubbub;

/** The transports that a client may use, in the order of their use. */
enum Transport {
    POLLING("polling"),
    WEBSOCKET("websocket"),
    UPGRADE("polling", "websocket");

    final String[] names;

    Transport(String... names) {
        this.names = names;
    }

    /** The transport in use after a possible upgrade. */
    String last() {
        return names[names.length - 1];
    }
}
