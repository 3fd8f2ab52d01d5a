import hubbub.ClientTests;
import io.socket.client.IO;

/** {@code io.socket:socket.io-client} 1.x: Engine.IO 3, a token in the query, refusals as text. */
class Version1Test extends ClientTests {
    @Override
    protected void putToken(IO.Options options, String token) {
        options.query = "token=" + token;
    }

    @Override
    protected Refusal refusal(Object data) {
        return new Refusal((String) data, null, null);
    }

    @Override
    protected String refusalEvent() {
        return "error";
    }
}
