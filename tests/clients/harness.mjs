// The harness of these tests: nodes, Redis and a TCP proxy as children of the test, clients of every
// version, and the record of everything that each client received.

export * from './harness/client.mjs';
export * from './harness/lab.mjs';
export { freePort } from './harness/processes.mjs';
export { RawClient } from './harness/raw-client.mjs';
export { Recorder } from './harness/recorder.mjs';
export * from './harness/tokens.mjs';
export * from './harness/wait.mjs';
