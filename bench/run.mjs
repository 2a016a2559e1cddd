// Runs every server through every case in turn, and writes down what came out. See scripts/bench.
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { promisify } from 'node:util';

import { plot } from './plot.mjs';
import { SERVERS, freePort, installed, nats, start } from './servers.mjs';
import { alone, summarize, table } from './summary.mjs';

const quick = Boolean(process.env.QUICK);
const rounds = Number(process.env.ROUNDS ?? (quick ? 1 : 3));
const only = process.env.ONLY?.split(',');
const seconds = quick ? 2 : 4;
const idle = quick ? 2000 : 10000;

const rate = (sockets, rate) => ({
  name: `${sockets}x${rate}`,
  options: ['--sockets', sockets, '--rate', rate],
});
const CASES = [
  ...(quick ? [] : [rate(100, 100)]),
  rate(1000, 20),
  ...(quick ? [] : [rate(5000, 4)]),
  { name: 'saturation', options: ['--sockets', 1000, '--saturate'] },
].map(({ name, options }) => ({
  name,
  options: [...options, '--size', 128, '--duration', seconds, '--warm-up', 1],
}));
const MEMORY = { name: 'memory', options: ['--sockets', idle, '--idle'] };

// What only a relay over Redis Streams has to answer for; run on tailcast alone.
const size = (bytes, seconds) => ['--size', bytes, '--duration', seconds, '--warm-up', 2];
const LOUD = ['--rate', 1000, ...size(1024, quick ? 5 : 20)];
const ALONE = [
  { name: 'rooms', options: ['--sockets', idle, '--rooms', idle, '--rate', 1000, ...size(128, 2 * seconds)] },
  { name: 'resume', options: ['--sockets', 5000, '--resume', '--missed', 100] },
  { name: 'healthy', options: ['--sockets', 900, ...LOUD] },
  { name: 'stalled', options: ['--sockets', 1000, '--stalled', 100, ...LOUD] },
];

const note = (text) => process.stderr.write(`${text}\n`);
const run = promisify(execFile);

async function client(server, ports, redis, pid, { options }) {
  const command = [
    '--json', '--url', `ws://127.0.0.1:${ports.port}`, '--redis', redis.url, '--redis-pid', redis.pid, '--pid', pid,
    ...(server.client?.(ports) ?? []), ...options,
  ].map(String);
  const { stdout } = await run('target/release/examples/bench', command, { timeout: 120_000 });
  return JSON.parse(stdout);
}

// One server, freshly started, through some cases.
async function measure(server, cases, redis, round, results) {
  const ports = { port: await freePort(), extra: await freePort(), redis: redis.url };
  const process = await start(server.command(ports), ports.port, server.environment?.(ports));
  try {
    for (const one of cases) {
      try {
        const report = await client(server, ports, redis, process.pid, one);
        results.push({ server: server.name, case: one.name, round, report });
        const { server: cost, losses } = report;
        const wrong = losses.lost + losses.duplicates + losses.reordered + losses.disconnected;
        note(
          `  ${server.name}, ${one.name}: ${cost.cpu_us_per_delivery.toFixed(2)} us, ` +
            `${Math.round(report.deliveries_per_second)}/s, ${Math.round(cost.rss_per_socket)} B per socket` +
            (wrong ? `, LOSSES ${JSON.stringify(losses)}` : ''),
        );
      } catch (error) {
        note(`  ${server.name}, ${one.name}: failed: ${(error.stderr || error.message).trim()}`);
      }
    }
  } finally {
    await process.stop();
  }
}

function version(program, ...options) {
  try {
    return execFileSync(program, options, { encoding: 'utf8' }).trim().split('\n')[0];
  } catch {
    return 'not installed';
  }
}

const machine = {
  cpu: cpus()[0].model,
  cores: cpus().length,
  memory_gib: Math.round(totalmem() / 2 ** 30),
  kernel: release().split('-')[0],
  congestion_control: readFileSync('/proc/sys/net/ipv4/tcp_congestion_control', 'utf8').trim(),
  redis: version('redis-server', '--version'),
  node: process.version,
  nats: version(nats, '--version'),
  peers: JSON.parse(readFileSync('bench/peers/package.json', 'utf8')).dependencies,
};

const redisPort = await freePort();
const redisServer = await start(
  ['redis-server', '--port', redisPort, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
  redisPort,
);
const redis = { url: `redis://127.0.0.1:${redisPort}`, pid: redisServer.pid };

let servers = SERVERS.filter(({ name }) => !only || only.includes(name));
for (const server of servers.filter((server) => !installed(server))) {
  note(`${server.name}: skipped, ${server.program} is missing`);
}
servers = servers.filter(installed);

const began = new Date();
const results = [];
const skipped = new Set();
// The order is turned round by round, so that nobody always follows the same neighbour.
const turned = (round) => servers.map((_, at) => servers[(at + round) % servers.length]);
const attempt = async (server, cases, round) => {
  if (skipped.has(server)) return;
  try {
    await measure(server, cases, redis, round, results);
  } catch (error) {
    skipped.add(server);
    note(`${server.name}: skipped, it did not start: ${error.message}`);
  }
};
for (let round = 0; round < rounds; round++) {
  note(`round ${round + 1} of ${rounds}`);
  for (const server of turned(round)) await attempt(server, CASES, round);
}
note('memory');
for (const server of servers) await attempt(server, [MEMORY], 0);
for (const server of servers.filter(({ name }) => name === 'tailcast')) {
  note('alone');
  // Each on a server of its own, so that one's rooms are not another's.
  for (const one of ALONE) await attempt(server, [one], 0);
}
await redisServer.stop();

const summary = summarize(servers.map(({ name }) => name), results);
const date = began.toISOString().slice(0, 10);
const header =
  `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, ${date}; ` +
  `${rounds} round(s), client and server on the same machine`;
mkdirSync('bench/runs', { recursive: true });
const file = `bench/runs/${began.toISOString().slice(0, 16).replace(':', '')}.json`;
const command = `${['QUICK', 'ROUNDS', 'ONLY'].filter((name) => process.env[name]).map((name) => `${name}=${process.env[name]} `).join('')}scripts/bench`;
writeFileSync(file, `${JSON.stringify({ date: began, machine, command, rounds, seconds, idle, results }, null, 1)}\n`);
if (!quick && !only) writeFileSync('bench/results.svg', plot(summary, header));
console.log(`${header}\n\n${table(summary, idle)}\n${alone(results, idle)}`);
note(`raw numbers in ${file}`);
