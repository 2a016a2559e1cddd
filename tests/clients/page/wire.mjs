// A way to the node that can be cut, for all or for WebSockets alone, or be deaf: then no answer comes back on it.
import { connect, createServer } from 'node:net'
import { base } from './browser.mjs'

export async function wire() {
  const sockets = new Set()
  let isCut = false
  let isClosed = false
  let isDeaf = false
  const server = createServer((near) => {
    if (isCut) return near.destroy()
    const far = connect({ host: '127.0.0.1', port: new URL(base).port })
    let isSocket = false
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
    }
    near.on('data', (data) => {
      isSocket ||= /\r\nupgrade: websocket/i.test(data.toString('latin1'))
      if (isSocket && isClosed) return near.destroy()
      far.write(data)
    })
    far.on('data', (data) => (isSocket && isDeaf) || near.write(data))
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const destroy = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      isCut = true
      destroy()
    },
    /** Lets no WebSocket through; pages and requests come through. */
    cutSockets() {
      isClosed = true
      destroy()
    },
    /** No answer comes back on WebSockets. */
    deafen() {
      isDeaf = true
    },
    mend() {
      isCut = isClosed = isDeaf = false
    },
    close() {
      this.cut()
      server.close()
    },
  }
}
