/** A refusal reaches also a client that sends all of its body before it reads. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { startTestApi } from '../support/api.ts'

const mebibyte = 1024 * 1024

/** Sends all, in pieces, and reads only then: as Python's http.client does. */
async function sendFirst(url: string, head: readonly string[], bytes: number): Promise<string> {
  const socket: Socket = connect(Number(new URL(url).port), '127.0.0.1')
  await once(socket, 'connect')
  const send = async (data: Buffer | string): Promise<void> =>
    await new Promise((resolve, reject) => socket.write(data, error => (error ? reject(error) : resolve())))
  await send(`${[...head, 'Host: localhost', 'Connection: close', `Content-Length: ${bytes}`].join('\r\n')}\r\n\r\n`)
  const piece = Buffer.alloc(256 * 1024, 'x')
  for (let sent = 0; sent < bytes; sent += piece.length) await send(piece)
  let reply = ''
  for await (const chunk of socket) reply += chunk
  return reply
}

t.test('large bodies that are refused at once', async t => {
  const api = await startTestApi(t, { MUSTER_OPERATOR_KEY: 'o'.repeat(40) })
  const key = 'Authorization: Bearer '.concat('o'.repeat(40))
  const octets = 'Content-Type: application/octet-stream'
  const cases: [name: string, head: string[], reply: RegExp][] = [
    ['no key', ['PUT /enqueue?type=noop HTTP/1.1', octets], /^HTTP\/1\.1 401[\s\S]*unauthenticated/],
    ['an unknown type', ['PUT /enqueue?type=nobody HTTP/1.1', octets, key], /^HTTP\/1\.1 400[\s\S]*type_unknown/],
    ['nothing there', ['PUT /nothing HTTP/1.1', octets, key], /^HTTP\/1\.1 404[\s\S]*route_not_found/],
    ['too large', ['PUT /enqueue?type=noop HTTP/1.1', 'Content-Type: application/json', key], /^HTTP\/1\.1 413/],
    ['not JSON', ['POST /workers/complete HTTP/1.1', 'Content-Type: application/json', key], /^HTTP\/1\.1 4\d\d/],
  ]
  for (const [name, head, expected] of cases)
    for (const size of [2 * mebibyte, 30 * mebibyte])
      t.match(await sendFirst(api.url, head, size), expected, `${name}, ${size} bytes`)
})

t.test('a client that sends slowly gets its refusal, too', async t => {
  const api = await startTestApi(t)
  const client = connect(Number(new URL(api.url).port), '127.0.0.1')
  t.teardown(() => client.destroy())
  client.pause()
  client.write('PUT /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n')
  // For longer than a node waits for one that is silent.
  for (let sent = 0; sent < 45; sent += 1) {
    await delay(100) // pause: of a slow client
    const error = await new Promise(resolve => client.write('x'.repeat(1000), resolve))
    t.notOk(error, `piece ${sent}`)
  }
  let reply = ''
  for await (const chunk of client) reply += chunk
  t.match(reply, /^HTTP\/1\.1 404[\s\S]*route_not_found/)
})

t.test('a client that neither goes on nor hangs up is hung up in the end', async t => {
  const api = await startTestApi(t)
  const accepted = once(api.app.server, 'connection') as Promise<[Socket]>
  const client = connect({ port: Number(new URL(api.url).port), host: '127.0.0.1', allowHalfOpen: true })
  t.teardown(() => client.destroy())
  client.write('PUT /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nx')
  const [socket] = await accepted
  const closed = new Promise(resolve => socket.once('close', resolve))
  let reply = ''
  for await (const chunk of client) reply += chunk
  t.match(reply, /^HTTP\/1\.1 404[\s\S]*connection: close/i)
  await closed
})
