// A balancer that gives each connection to the next node, so that nothing is sticky.
import { connect, createServer } from 'node:net'

let turn = 0

/** Listens on a port of its own. `nodes` gives the ports of the nodes; `cut` breaks all connections. */
export async function balance(nodes) {
  const open = new Set()
  // A node that is gone is passed over.
  const reach = ([port, ...others], done) => {
    if (port === undefined) return done(null)
    const upstream = connect(port, '127.0.0.1')
    const refused = () => reach(others, done)
    upstream.once('error', refused)
    upstream.once('connect', () => {
      upstream.removeListener('error', refused)
      done(upstream)
    })
  }
  const server = createServer((client) => {
    open.add(client)
    client.on('error', () => {})
    client.on('close', () => open.delete(client))
    const ports = nodes()
    const first = turn++ % ports.length
    reach([...ports.slice(first), ...ports.slice(0, first)], (upstream) => {
      if (!upstream || client.destroyed) {
        upstream?.destroy()
        return client.destroy()
      }
      upstream.on('error', () => client.destroy())
      client.on('close', () => upstream.destroy())
      upstream.on('close', () => client.destroy())
      client.pipe(upstream).pipe(client)
    })
  })
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  const cut = () => open.forEach((client) => client.destroy())
  return { url: `http://127.0.0.1:${server.address().port}`, cut }
}
