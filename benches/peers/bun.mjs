// Socket.IO on Bun's own engine: bun bun.mjs PORT

import { Server } from "socket.io";
import { Server as Engine } from "@socket.io/bun-engine";
import { chat } from "./chat.mjs";

const io = new Server();
const engine = new Engine({ path: "/socket.io/" });
io.bind(engine);
chat(io);
Bun.serve({ port: Number(process.argv[2]), hostname: "127.0.0.1", idleTimeout: 30, ...engine.handler() });
