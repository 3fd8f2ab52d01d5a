const SESSION_KEY = `hubbub session ${node}`;
const SESSION_ENDED = "The session has ended: log in again.";
let session = null; // of this tab: {user, access_token, refresh_token, id, refresh_at}
let refreshTimer;

const storedSession = () => JSON.parse(localStorage.getItem(SESSION_KEY));

// The id of the session is the claim `sid` of its access tokens.
function sessionId(accessToken) {
  const claims = accessToken.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  return JSON.parse(atob(claims)).sid;
}

function store({ user, access_token, refresh_token, expires_in }) {
  const life = expires_in * 1000;
  const refresh_at = Date.now() + Math.max(life - REFRESH_EARLY_MS, life / 2);
  const stored = { user, access_token, refresh_token, id: sessionId(access_token), refresh_at };
  localStorage.setItem(SESSION_KEY, JSON.stringify(stored)); // other tabs get the event `storage`
  return stored;
}

const sessionEnded = () => new Refused({ code: "unauthorized", error: SESSION_ENDED }, 401);

async function validTokens() {
  if (!session) throw sessionEnded();
  return Date.now() < session.refresh_at ? session : refresh(session);
}

// Replaces the tokens `used`, unless another call has replaced them. All tabs share one lock, so that
// a refresh token is used once: a tab that waited for the lock finds the new tokens in the storage.
// Without the lock (a page outside of secure contexts has none) the node's grace window protects the
// session: for REFRESH_GRACE_SECS it answers a used refresh token with the same successor.
function refresh(used) {
  const replace = () => replaceTokens(used);
  return navigator.locks ? navigator.locks.request(SESSION_KEY, replace) : replace();
}

async function replaceTokens(used) {
  for (;;) {
    const stored = storedSession();
    if (stored?.id !== used.id) throw sessionEnded();
    // Two access tokens of the same second may be equal; refresh tokens never are.
    if (stored.refresh_token !== used.refresh_token) return adopt(stored);
    try {
      const tokens = await request("POST", "/auth/refresh", { refresh_token: stored.refresh_token });
      clearConnectionProblem();
      if (storedSession()?.id !== used.id) throw sessionEnded(); // another tab has logged out meanwhile
      return adopt(store(tokens));
    } catch (refusal) {
      if (refusal.status === 401) {
        // Without the lock another tab may have stored newer tokens meanwhile.
        if (storedSession()?.refresh_token !== stored.refresh_token) continue;
        endSession(stored.id, SESSION_ENDED);
        throw sessionEnded();
      }
      if (refusal.status >= 400 && refusal.status < 500 && refusal.status !== 429) throw refusal;
      // The answer may be lost. The same request again, within the grace window, is answered with
      // the same tokens, so it is repeated at once and not when the tokens are needed next.
      showConnectionProblem(refusal.message);
      await sleep(refusal.retryAfter ? refusal.retryAfter * 1000 : RETRY_MS);
    }
  }
}

// Continues with new tokens of the same session.
function adopt(tokens) {
  const isNew = tokens.access_token !== session?.access_token;
  if (!session || tokens.id !== session.id) return tokens;
  session = tokens;
  scheduleRefresh();
  // A connection ends when its token expires, unless a newer one prolongs it.
  if (isNew && socket?.connected) socket.emit("authenticate", { token: tokens.access_token }, () => {});
  return tokens;
}

function scheduleRefresh() {
  clearTimeout(refreshTimer);
  const wait = Math.min(session.refresh_at - Date.now(), LONGEST_TIMER_MS);
  refreshTimer = setTimeout(() => {
    if (Date.now() < session.refresh_at) scheduleRefresh();
    else refresh(session).catch((refusal) => showProblem(refusal.message));
  }, wait);
}

// Another tab has logged in, replaced the tokens, or logged out.
addEventListener("storage", ({ key }) => {
  if (key !== null && key !== SESSION_KEY) return;
  const stored = storedSession();
  if (stored?.id === session?.id) {
    if (stored) adopt(stored);
    return;
  }
  leave();
  if (stored) enter(stored);
  else showForm("login", "Logged out in another tab.");
});

// The session `id` has ended. A newer session that another tab has stored meanwhile stays.
function endSession(id, reason) {
  if (storedSession()?.id === id) localStorage.removeItem(SESSION_KEY);
  if (session?.id !== id) return;
  leave();
  showForm("login", reason);
}
