//! Published holes of Socket.IO, Engine.IO, WebSocket and HTTP servers, tried on this one.
