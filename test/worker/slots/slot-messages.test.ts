/** How a lease becomes a message to its slot. */
import t from 'tap'
import type { Lease } from '../../../src/contract/worker-protocol.ts'
import { Attempt } from '../../../src/worker/attempts/attempt.ts'
import { toSlotJob } from '../../../src/worker/slots/slot-messages.ts'

const attemptOf = (more: Partial<Lease>): Attempt =>
  new Attempt(
    {
      ...{ workId: 'w', token: 't', type: 'echo', attempt: 1, attempts: 1, params: {}, timeoutMs: 1 },
      payload: { json: null },
      ...more,
    },
    0,
  )

t.test('bytes of a lease go into the body of the frame, the payload first', async t => {
  const body: Buffer[] = []
  const base64 = (text: string): { base64: string } => ({ base64: Buffer.from(text).toString('base64') })
  const first = toSlotJob(attemptOf({ payload: base64('payload'), checkpoint: base64('at 7') }), false, body)
  const second = toSlotJob(attemptOf({ payload: { json: [1] }, checkpoint: base64('') }), true, body)
  t.match(first, { payload: { blob: { kind: 'bytes', bytes: 7 } }, checkpoint: { blob: { kind: 'bytes', bytes: 4 } } })
  t.match(second, { payload: { json: [1] }, checkpoint: { blob: { bytes: 0 } }, isolated: true })
  t.equal(Buffer.concat(body).toString(), 'payloadat 7')
})

t.test('what is streamed ahead does not go with the job', async t => {
  const body: Buffer[] = []
  const blob = { url: '/b', kind: 'bytes' as const, bytes: 1, sha256: '0'.repeat(64) }
  const job = toSlotJob(attemptOf({ payload: { blob }, checkpoint: { blob } }), false, body)
  t.notOk('payload' in job || 'checkpoint' in job)
  const attempt = attemptOf({ checkpoint: { base64: 'AAAA' } })
  attempt.hasSentCheckpoint = true
  t.notOk('checkpoint' in toSlotJob(attempt, false, body), 'a newer one is with the nodes')
  t.same(body, [])
})
