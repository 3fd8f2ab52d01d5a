import hubbub.ChangesTests;

/** Messages that change, with {@code io.socket:socket.io-client} 1.x. */
class Changes1Test extends ChangesTests {}
