// Socket.IO with @socket.io/redis-streams-adapter, both with default settings, sockets in rooms.
//
// Entries enter as they do in a real installation where another process publishes: in the
// adapter's own stream, written as @socket.io/redis-streams-emitter writes them, which spares this
// server the XADD that io.to(room).emit() would cost it.
//
// usage: node socketio.js PORT REDIS_URL
'use strict';

const { createServer } = require('node:http');
const { createClient } = require('redis');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/redis-streams-adapter');

const [port, redisUrl] = process.argv.slice(2);

async function main() {
  const redis = createClient({ url: redisUrl });
  await redis.connect();
  const httpServer = createServer();
  const io = new Server(httpServer, { adapter: createAdapter(redis) });
  io.on('connection', (socket) => {
    socket.on('join', async (room, joined) => {
      await socket.join(room);
      joined();
    });
  });
  httpServer.listen(Number(port), '127.0.0.1', () => console.log(`listening on ${port}`));
}

main();
