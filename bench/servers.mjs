// The servers that are measured, and how each is started and stopped.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const ROOM = 'bench-0'; // the only room; tailcast bench names it so
// Debian keeps it where only root's PATH looks.
export const nats = ['/usr/local/bin', '/usr/bin', '/usr/sbin'].map((folder) => `${folder}/nats-server`).find(existsSync) ?? 'nats-server';
const floor = 'target/release/examples/floor';

// `command` gets { port, redis, extra } and gives [program, ...arguments]; `proto` and `client` are
// for the client.
export const SERVERS = [
  {
    name: 'tailcast',
    program: 'target/release/tailcast',
    command: ({ port, redis }) => ['target/release/tailcast', 'serve', '--listen', `127.0.0.1:${port}`, '--redis', redis],
  },
  {
    name: 'floor',
    program: floor,
    command: ({ port, redis }) => [floor, '--listen', `127.0.0.1:${port}`, '--redis', redis, '--key', ROOM],
  },
  {
    name: 'floor --coalesce',
    program: floor,
    command: ({ port, redis }) => [floor, '--listen', `127.0.0.1:${port}`, '--redis', redis, '--key', ROOM, '--coalesce'],
  },
  {
    name: 'ws + ioredis',
    program: 'bench/peers/node_modules/ws',
    command: ({ port, redis }) => ['node', 'bench/peers/ws-ioredis.js', port, redis, ROOM],
  },
  {
    name: 'Socket.IO',
    program: 'bench/peers/node_modules/socket.io',
    command: ({ port, redis }) => ['node', 'bench/peers/socketio.js', port, redis],
    client: () => ['--proto', 'socketio-adapter'],
  },
  {
    name: 'NATS',
    program: nats,
    command: () => [nats, '-c', 'bench/peers/nats.conf'],
    environment: ({ port, extra }) => ({ NATS_WS: port, NATS_TCP: extra }),
    client: ({ extra }) => ['--proto', 'nats', '--nats', `127.0.0.1:${extra}`],
  },
];

export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => (socket.destroy(), resolve(true)));
    socket.on('error', () => resolve(false));
  });
}

// Starts a program and waits until its port answers. Throws, with what it said, if it never does.
export async function start(command, port, environment = {}) {
  const child = spawn(command[0], command.slice(1).map(String), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  running.add(child);
  let said = '';
  const ended = new Promise((resolve) => {
    child.on('exit', resolve);
    child.on('error', (error) => resolve((said = error.message)));
  }).then(() => running.delete(child));
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text) => (said = (said + text).slice(-2000)));
  }
  const gone = () => child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
  for (let tries = 0; tries < 300 && !gone(); tries++) {
    if (await answers(port)) return { pid: child.pid, stop: () => stop(child, ended) };
    await sleep(50);
  }
  await stop(child, ended);
  throw new Error(said.trim().split('\n').pop() || 'it ended without a word');
}

async function stop(child, ended) {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGKILL'); // nothing to keep, and a drain would only cost time
  }
  await ended;
}

// Whatever happens, nothing that was started is left behind.
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

export const installed = (server) => existsSync(server.program);
