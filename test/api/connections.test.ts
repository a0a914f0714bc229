import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { headWithinMs, limitConnections } from '../../src/api/plugins/admission.ts'
import { startTestApi } from '../support/api.ts'
import { until } from '../support/until.ts'

t.test('one address has half of all connections, and leaves room for others', async t => {
  const server = createServer((_request, response) => response.end('here'))
  limitConnections(server, 16)
  server.listen(0, '0.0.0.0')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const open = new Set<Socket>()
  const start = (): Socket => {
    const socket = connect(port, '127.0.0.1')
    open.add(socket)
    socket.on('error', () => undefined).once('close', () => open.delete(socket))
    return socket
  }
  t.teardown(() => {
    for (const socket of open) socket.destroy()
    server.close()
  })
  for (let count = 0; count < 20; count += 1) start()
  await until(() => open.size === 8)
  // Another address of this machine; Linux alone has all of 127.0.0.0/8.
  if (process.platform === 'linux') {
    const other = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' })
    other.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    t.match(await text(other), /here$/)
  }
  for (const socket of open) socket.destroy()
  await until(async () => {
    const socket = start()
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    return (await text(socket).catch(() => '')).endsWith('here')
  })
})

t.test('a connection on which nothing comes is hung up', async t => {
  const api = await startTestApi(t)
  t.equal(api.app.server.headersTimeout, headWithinMs)
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
  socket.resume()
  await once(socket, 'close')
  t.equal((await api.call('GET', '/livez')).status, 200)
})
