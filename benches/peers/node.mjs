// Socket.IO on Node: node node.mjs ws|ws-pubsub|uws PORT [REDIS_URL]. With a Redis, several share rooms by the sharded adapter,
// which listens to the rooms of its own clients only; ws-pubsub by the plain one, which every node hears everything of.

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
  // uWebSockets.js itself is not in the registry; this is a build of it that is. Without a binary for this machine it would
  // do the same in JavaScript, and be measured for what it is not.
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
