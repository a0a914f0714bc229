/** What a worker makes of replies that no node of ours would give. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { NodeClient } from '../../src/worker/node/node-client.ts'

async function clientOf(t: Test, answer: (response: ServerResponse) => void): Promise<NodeClient> {
  const server = createServer((_request, response) => answer(response)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const log = pino({ level: 'silent' })
  const client = new NodeClient({ nodeUrls: [`http://127.0.0.1:${port}`], token: '', log })
  t.teardown(async () => {
    await client.close()
    server.close()
  })
  return client
}

const ref = { workId: 'w', token: 't' }

t.test('a checkpoint says how long it is, and its SHA-256', async t => {
  const digest = createHash('sha256').update('bytes').digest()
  const client = await clientOf(t, response =>
    response
      .setHeader('repr-digest', `sha-256=:${digest.toString('base64')}:`)
      .setHeader('content-length', 5)
      .end('bytes'),
  )
  const { body, ...described } = await client.openCheckpoint(ref)
  t.same(described, { bytes: 5, sha256: digest.toString('hex') })
  t.equal((await buffer(body)).toString(), 'bytes')
})

for (const length of [1, 1_000_000])
  t.test(`one that does not say it is refused, and ends nobody (${length} bytes)`, async t => {
    const client = await clientOf(t, response => response.end('x'.repeat(length)))
    for (let call = 0; call < 3; call += 1) await t.rejects(client.openCheckpoint(ref), { code: 'reply_invalid' })
  })
