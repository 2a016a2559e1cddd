// What each protocol costs a node, beside raw, in one run. See scripts/bench.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { SERVERS, freePort, start } from './servers.mjs';

const PROTOCOLS = ['raw', 'json', 'sse', 'socketio', 'stomp', 'sockjs'];
const quick = Boolean(process.env.QUICK);
const rounds = Number(process.env.ROUNDS ?? (quick ? 1 : 3));
const IDLE = ['--sockets', quick ? 1000 : 5000, '--idle'];
const LOAD = ['--sockets', 1000, '--rate', 20, '--size', 128, '--duration', quick ? 2 : 4, '--warm-up', 1];
const SATURATED = ['--sockets', 1000, '--saturate', '--size', 128, '--duration', quick ? 2 : 4, '--warm-up', 1];

const run = promisify(execFile);
const [tailcast] = SERVERS;
const redisPort = await freePort();
const redis = await start(
  ['redis-server', '--port', redisPort, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
  redisPort,
);
const url = `redis://127.0.0.1:${redisPort}`;

// A node of its own for each run: what another protocol freed is not to be taken for this one's.
async function measure(proto, options) {
  const port = await freePort();
  const node = await start(tailcast.command({ port, redis: url }), port);
  try {
    const command = ['--json', '--proto', proto, '--url', `ws://127.0.0.1:${port}`, '--redis', url, '--pid', node.pid, ...options];
    const { stdout } = await run('target/release/examples/bench', command.map(String), { timeout: 120_000 });
    const report = JSON.parse(stdout);
    const { lost, duplicates, reordered, disconnected } = report.losses;
    if (lost + duplicates + reordered + disconnected > 0) {
      process.stderr.write(`${proto}: LOSSES ${JSON.stringify(report.losses)}\n`);
    }
    return report;
  } finally {
    await node.stop();
  }
}

const middle = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
const found = Object.fromEntries(PROTOCOLS.map((proto) => [proto, { idle: [], load: [], most: [] }]));
for (let round = 0; round < rounds; round++) {
  // The order is turned, so that nobody always follows the same neighbour.
  for (const at of PROTOCOLS.keys()) {
    const proto = PROTOCOLS[(at + round) % PROTOCOLS.length];
    process.stderr.write(`round ${round + 1} of ${rounds}: ${proto}\n`);
    found[proto].idle.push((await measure(proto, IDLE)).server.rss_per_socket);
    found[proto].load.push((await measure(proto, LOAD)).server.cpu_us_per_delivery);
    found[proto].most.push((await measure(proto, SATURATED)).deliveries_per_second);
  }
}
await redis.stop();

const of = (proto, what) => middle(found[proto][what]);
const beside = (proto, what, digits = 2) => (of(proto, what) / of('raw', what)).toFixed(digits);
console.log(`| protocol | memory per idle socket | beside raw | CPU per delivery, 1,000 x 20/s | beside raw | saturated, deliveries/s | beside raw |
|---|---:|---:|---:|---:|---:|---:|`);
for (const proto of PROTOCOLS) {
  console.log(
    `| ${proto} | ${(of(proto, 'idle') / 1000).toFixed(1)} KB | ${beside(proto, 'idle')} ` +
      `| ${of(proto, 'load').toFixed(2)} µs | ${beside(proto, 'load')} ` +
      `| ${(of(proto, 'most') / 1e6).toFixed(2)} M | ${beside(proto, 'most')} |`,
  );
}
