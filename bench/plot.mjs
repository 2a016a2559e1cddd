// Draws the medians as horizontal bars. Greys and colours are chosen to read on white and on black,
// and there is no background.
import { count } from './summary.mjs';

const WIDTH = 760;
const LABELS = 150; // room for the servers' names
const VALUES = 90; // room for the figures behind the bars
const ROW = 24;

const escape = (text) => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;');

function panel(title, rows, top, show) {
  const most = Math.max(...rows.map(({ value }) => value), 1e-9);
  const bars = rows.map(({ name, value }, at) => {
    const y = top + 30 + at * ROW;
    const length = Math.max(1, ((WIDTH - LABELS - VALUES) * value) / most);
    const kind = name === 'tailcast' ? 'ours' : name.startsWith('floor') ? 'floor' : 'peer';
    return [
      `<text x="${LABELS - 8}" y="${y + 13}" text-anchor="end">${escape(name)}</text>`,
      `<rect class="${kind}" x="${LABELS}" y="${y}" width="${length.toFixed(1)}" height="${ROW - 7}" rx="2"/>`,
      `<text x="${(LABELS + length + 6).toFixed(1)}" y="${y + 13}">${escape(show(value))}</text>`,
    ].join('\n');
  });
  return {
    svg: `<text class="title" x="0" y="${top + 16}">${escape(title)}</text>\n${bars.join('\n')}`,
    height: 30 + rows.length * ROW + 18,
  };
}

export function plot(summary, header) {
  const panels = [
    {
      title: 'Server CPU per delivery, 1,000 sockets in one room × 20 entries/s, µs (less is better)',
      of: (row) => row.rates.find(({ name }) => name === '1000x20')?.cost,
      show: (value) => value.toFixed(1),
    },
    {
      title: 'Saturation, 1,000 sockets in one room, deliveries/s (more is better)',
      of: (row) => row.saturation,
      show: count,
    },
    {
      title: 'Resident memory per idle socket, KiB (less is better)',
      of: (row) => row.memory,
      show: (value) => (value / 1024).toFixed(1),
    },
  ];
  let top = 0;
  const parts = panels.map(({ title, of, show }) => {
    const rows = summary.map((row) => ({ name: row.name, value: of(row) })).filter(({ value }) => value !== undefined);
    const { svg, height } = panel(title, rows, top, show);
    top += height;
    return svg;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top + 16}" width="${WIDTH}" height="${top + 16}" role="img" aria-label="tailcast and its peers, measured">
<style>
text { font: 13px system-ui, sans-serif; fill: #57606a; }
.title { font-weight: 600; }
.note { font-size: 11px; }
.ours { fill: #d9480f; }
.floor { fill: #8b949e; }
.peer { fill: #4c8dd6; }
@media (prefers-color-scheme: dark) { text { fill: #b1bac4; } .ours { fill: #ff8c4b; } }
</style>
${parts.join('\n')}
<text class="note" x="0" y="${top + 8}">${escape(header)}</text>
</svg>
`;
}
