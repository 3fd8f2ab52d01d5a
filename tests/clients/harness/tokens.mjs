// JSON Web Tokens.

import { createHmac } from 'node:crypto';

export const SECRET = 'a-secret-for-tests-that-is-long-enough';

/** A JWT signed with HS256. `exp` defaults to one hour from now; `exp: null` omits it. */
export function token(claims, { secret = SECRET, header = {} } = {}) {
    const all = { exp: inSeconds(3600), ...claims };
    if (all.exp === null) delete all.exp;
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: 'HS256', typ: 'JWT', ...header })}.${part(all)}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;
