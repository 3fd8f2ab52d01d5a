package hubbub;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** JWTs signed with HS256. */
final class Token {
    static final String SECRET = "a-secret-for-tests-that-is-long-enough";

    /** A token of `user`, which expires after `seconds` (in the past if negative). */
    static String of(String user, long seconds, String secret) throws GeneralSecurityException {
        long exp = System.currentTimeMillis() / 1_000 + seconds;
        String claims = "{\"sub\":\"%s\",\"exp\":%d}".formatted(user, exp);
        String signed = base64("{\"alg\":\"HS256\",\"typ\":\"JWT\"}") + "." + base64(claims);
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        return signed + "." + base64(mac.doFinal(signed.getBytes(StandardCharsets.UTF_8)));
    }

    static String of(String user) throws GeneralSecurityException {
        return of(user, 3_600, SECRET);
    }

    private static String base64(String text) {
        return base64(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String base64(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }

    private Token() {}
}
