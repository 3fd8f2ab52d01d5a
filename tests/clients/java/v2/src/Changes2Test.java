import hubbub.ChangesTests;

/** Messages that change, with {@code io.socket:socket.io-client} 2.x. */
class Changes2Test extends ChangesTests {}
