// Medians over the rounds, and ratios within each round.

export function median(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const cost = (report) => report.server.cpu_us_per_delivery;
const pace = (report) => report.deliveries_per_second;

// Per server: the cost of each rate case, the pace of saturation, memory. Ratios are taken within
// a round, against the floor that ran in the same round.
export function summarize(names, results) {
  const rateCases = [...new Set(results.map((one) => one.case))].filter((name) => name.includes('x'));
  const pick = (server, name, round) =>
    results.find((one) => one.server === server && one.case === name && one.round === round)?.report;
  const every = [...new Set(results.map((one) => one.round))];
  const value = (server, name, of) => median(every.map((round) => pick(server, name, round)).filter(Boolean).map(of));
  const ratio = (server, base, name, of) =>
    median(
      every
        .map((round) => [pick(server, name, round), pick(base, name, round)])
        .filter(([mine, theirs]) => mine && theirs)
        .map(([mine, theirs]) => of(mine) / of(theirs)),
    );
  return names
    .map((name) => {
      const memory = pick(name, 'memory', 0);
      return {
        name,
        rates: rateCases.map((one) => ({
          name: one,
          cost: value(name, one, cost),
          ratio: ratio(name, 'floor', one, cost),
          p99: value(name, one, (report) => report.latency_ms.p99),
        })),
        saturation: value(name, 'saturation', pace),
        saturationRatio: ratio(name, 'floor --coalesce', 'saturation', pace),
        memory: memory?.server.rss_per_socket,
        afterBroadcast: memory?.server.rss_per_socket_after_broadcast,
        lost: results
          .filter((one) => one.server === name)
          .reduce((sum, { report: { losses } }) => sum + losses.lost + losses.duplicates + losses.reordered, 0),
      };
    })
    .filter((row) => results.some((one) => one.server === row.name));
}

const show = (value, digits, unit = '') => (value === undefined ? '–' : value.toFixed(digits) + unit);

export function count(value) {
  if (value === undefined) return '–';
  return value >= 1e6 ? `${(value / 1e6).toFixed(2)} M` : `${Math.round(value / 1e3)} k`;
}

export function table(summary, idle) {
  const rates = summary[0]?.rates.map(({ name }) => name) ?? [];
  const head = [
    'server',
    ...rates.map((name) => `${name.replace('x', ' × ')}/s: µs CPU per delivery (× floor), p99`),
    'saturation, 1,000 sockets: deliveries/s (× coalescing floor)',
    `bytes per idle socket at ${idle}`,
    'after a 32 KB broadcast',
    'lost, doubled, reordered',
  ];
  const rows = summary.map((row) => [
    row.name,
    ...row.rates.map(({ cost, ratio, p99 }) => `${show(cost, 1)} (${show(ratio, 2)}), ${show(p99, 1, ' ms')}`),
    `${count(row.saturation)} (${show(row.saturationRatio, 2)})`,
    show(row.memory, 0),
    show(row.afterBroadcast, 0),
    row.lost,
  ]);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, at) => (at ? '---:' : '---'))), ...rows.map(line)].join('\n');
}

// The cases that tailcast runs alone, a line each.
export function alone(results, idle) {
  const find = (name) => results.find((one) => one.server === 'tailcast' && one.case === name)?.report;
  const [rooms, resume, healthy, stalled] = ['rooms', 'resume', 'healthy', 'stalled'].map(find);
  const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const lines = [];
  if (rooms) {
    lines.push(
      `- ${idle} rooms with a socket each, 1,000 entries/s in all: ${(100 * rooms.redis_core).toFixed(1)} % of a Redis core, ` +
        `p99 ${rooms.latency_ms.p99.toFixed(1)} ms, ${rooms.losses.lost} lost`,
    );
  }
  if (resume) {
    lines.push(
      `- 5,000 clients resume in one room with 100 entries missed: ${resume.resume.redis_reads} Redis reads in all, ` +
        `everybody level after ${resume.resume.seconds.toFixed(2)} s, ${resume.losses.lost} lost`,
    );
  }
  if (healthy && stalled) {
    const grew = stalled.server.rss_max - stalled.server.rss_connected;
    lines.push(
      `- 900 sockets at 1,000 entries/s of 1 KiB: p99 ${healthy.latency_ms.p99.toFixed(1)} ms; ` +
        `with 100 more that never read: p99 ${stalled.latency_ms.p99.toFixed(1)} ms, ` +
        `resident memory grew by ${mib(grew)}, ${stalled.losses.lost} lost`,
    );
  }
  return lines.length ? `\n${lines.join('\n')}\n` : '';
}
