// What a tutorial on "WebSockets with Redis Streams" ends with: one blocking XREAD loop, and every
// entry sent to every client.
//
// usage: node ws-ioredis.js PORT REDIS_URL KEY
'use strict';

const { WebSocketServer, WebSocket } = require('ws');
const Redis = require('ioredis');

const [port, redisUrl, key] = process.argv.slice(2);
const wss = new WebSocketServer({ host: '127.0.0.1', port: Number(port) });
const redis = new Redis(redisUrl);

async function listen(lastId = '$') {
  for (;;) {
    const results = await redis.xread('BLOCK', 0, 'STREAMS', key, lastId);
    const [, messages] = results[0];
    for (const [id, fields] of messages) {
      lastId = id;
      wss.clients.forEach((client) => {
        if (client.readyState === WebSocket.OPEN) client.send(fields[1]);
      });
    }
  }
}

listen();
wss.on('listening', () => console.log(`listening on ${port}`));
