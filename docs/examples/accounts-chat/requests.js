const ANSWER_TIMEOUT_MS = 10_000;
const RETRY_MS = 1_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
// The access token is replaced this long before it expires, or after half of its life if that is later.
const REFRESH_EARLY_MS = 5 * 60_000;
const CHATS_LISTED = 50;
// A page shows the last messages of a chat. Where more events than these are missing, it begins again.
const MESSAGES_LISTED = 200;

const node = new URLSearchParams(location.search).get("url") || "http://127.0.0.1:8080";
const element = (id) => document.getElementById(id);
const sleep = (wait) => new Promise((done) => setTimeout(done, wait));
let hasConnectionProblem = false; // the problem shown ends by itself

function showProblem(text) {
  hasConnectionProblem = false;
  element("problem").textContent = text;
}

function showConnectionProblem(text) {
  showProblem(`${text} Trying again.`);
  hasConnectionProblem = true;
}

function clearConnectionProblem() {
  if (hasConnectionProblem) showProblem("");
}

// Texts of other users become text nodes, never HTML.
function make(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

// A refusal of the node, or `no_answer`.
class Refused extends Error {
  constructor({ code, error, field }, status, retryAfter) {
    super(error);
    Object.assign(this, { code, field, status, retryAfter });
  }
}

// One request without a token, or with this one.
async function request(method, path, body, token) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`${node}/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    // The browser hides the answer to a page of another origin, so both causes look alike.
    const error = `No answer from ${node}. Either no node runs there, or it refuses pages of the origin ${self.origin} (see ALLOWED_ORIGINS).`;
    throw new Refused({ code: "no_answer", error }, 0);
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { code = "unknown", error = `The node answered with status ${response.status}.`, field } = answer;
  throw new Refused({ code, error, field }, response.status, response.headers.get("Retry-After"));
}

// A request of the session's user. An access token that is refused is replaced once.
async function api(method, path, body) {
  const tokens = await validTokens();
  try {
    return await request(method, path, body, tokens.access_token);
  } catch (refusal) {
    if (refusal.status !== 401) throw refusal;
    return request(method, path, body, (await refresh(tokens)).access_token);
  }
}
