import hubbub.ClientTests;
import io.socket.client.IO;
import java.util.Map;
import org.json.JSONException;
import org.json.JSONObject;

/** {@code io.socket:socket.io-client} 2.x: Engine.IO 4, a token in {@code auth}, refusals with data. */
class Version2Test extends ClientTests {
    @Override
    protected void putToken(IO.Options options, String token) {
        options.auth = Map.of("token", token);
    }

    @Override
    protected Refusal refusal(Object data) throws JSONException {
        JSONObject refusal = (JSONObject) data;
        JSONObject details = refusal.optJSONObject("data");
        if (details == null) {
            return new Refusal(refusal.getString("message"), null, null);
        }
        return new Refusal(
                refusal.getString("message"),
                details.getString("code"),
                details.getString("reason"));
    }

    @Override
    protected String refusalEvent() {
        return "connect_error";
    }
}
