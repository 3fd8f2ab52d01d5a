// Socket.IO on Node: node node.mjs ws|ws-pubsub|uws PORT [REDIS_URL].
// With a Redis, several nodes share rooms through the sharded adapter, which subscribes only to the
// rooms of its own clients. ws-pubsub uses the plain adapter, with which each node receives all
// messages.

import { createServer } from "node:http";
import { Server } from "socket.io";
import { chat } from "./chat.mjs";

const [engine, port, redisUrl] = process.argv.slice(2);
const options = { serveClient: false, transports: ["websocket"] };
if (redisUrl) {
  const { createClient } = await import("redis");
  const { createAdapter, createShardedAdapter } = await import("@socket.io/redis-adapter");
  const publisher = createClient({ url: redisUrl });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  options.adapter =
    engine === "ws-pubsub"
      ? createAdapter(publisher, subscriber)
      : createShardedAdapter(publisher, subscriber, { subscriptionMode: "dynamic" });
}
const io = new Server(options);
if (engine === "uws") {
  // uWebSockets.js itself is not published in the npm registry; this is a build of it that is.
  // Without a binary for this machine the package falls back to JavaScript, and the measurement
  // would not be one of uWebSockets.js.
  const { default: uws } = await import("@trufflesuite/uws-js-unofficial");
  if (!process.report.getReport().sharedObjects.some((path) => path.includes("uws_"))) {
    throw new Error("this build of uWebSockets.js has no binary for this machine");
  }
  const app = uws.App();
  io.attachApp(app);
  chat(io);
  app.listen("127.0.0.1", Number(port), (token) => {
    if (!token) process.exit(1);
  });
} else {
  const server = createServer();
  io.attach(server);
  chat(io);
  server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
}
