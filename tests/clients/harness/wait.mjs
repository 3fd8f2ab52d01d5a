// Deadlines and polling.

/**
 * The deadline for anything that should happen immediately, in ms. It is generous, because the
 * machine may be busy.
 */
export const DEADLINE_MS = 8_000;

/** Polls until `probe` returns a truthy value; throws after `ms` milliseconds. */
export async function eventually(probe, ms = DEADLINE_MS, description = 'condition') {
    const deadline = Date.now() + ms;
    let last;
    for (;;) {
        try {
            const value = await probe();
            if (value) return value;
            last = value;
        } catch (error) {
            last = error;
        }
        if (Date.now() > deadline) {
            throw new Error(`${description}: not within ${ms} ms (last: ${last})`);
        }
        await pause(20);
    }
}

/** For pacing and polling only. Absence is proved by a sentinel, never by waiting. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The result of `promise`; throws if it is not settled after `ms` milliseconds. */
export async function within(ms, description, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(
            () => reject(new Error(`${description}: no answer within ${ms} ms`)),
            ms,
        );
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}
