/** Requests that must be refused, and change nothing; and clients that are slow, or leave in the middle. */
import { setTimeout as delay } from 'node:timers/promises'
import { type Call, NoAnswer } from '../http.ts'
import type { Move, Stage } from '../move.ts'
import { queueNames } from './collect.ts'
import { mayHaveSubmitted } from './submit.ts'

interface Refused {
  readonly what: string
  readonly query?: string
  readonly type: string
  readonly body: string | Buffer
}

const multipart = 'multipart/form-data; boundary=x'
const part = (headers: string, text = 'hi'): string => `--x\r\n${headers}\r\n\r\n${text}\r\n--x--\r\n`
const data = 'Content-Disposition: form-data; name="data"'
const json = 'application/json'
const octets = 'application/octet-stream'

const refused: readonly Refused[] = [
  { what: 'a part without a name', type: multipart, body: part('Content-Disposition: form-data; filename="a.bin"') },
  { what: 'a part without anything', type: multipart, body: part('Content-Disposition: form-data') },
  { what: 'a part with a slip', type: multipart, body: part('Content-Disposition: form-data; nam="data"') },
  { what: 'a part with an empty name', type: multipart, body: part('Content-Disposition: form-data; name=""') },
  { what: 'a part of another name', type: multipart, body: part('Content-Disposition: form-data; name="other"') },
  { what: 'no disposition', type: multipart, body: part('X-Nothing: 1') },
  { what: 'no end', type: multipart, body: '--x\r\nContent-Disposition: form-data; name="data"\r\n\r\nhi' },
  { what: 'no parts', type: multipart, body: '--x--\r\n' },
  { what: 'no boundary', type: 'multipart/form-data', body: part('Content-Disposition: form-data; name="data"') },
  { what: 'data that holds its boundary', type: multipart, body: part(data, 'a\r\n--xyz') },
  { what: 'much data that holds its boundary', type: multipart, body: part(data, `${'a'.repeat(70_000)}\r\n--x y`) },
  { what: 'half of JSON', type: json, body: '{"payload":' },
  { what: 'an array', type: json, body: '[]' },
  { what: 'bytes that are no UTF-8', type: json, body: Buffer.from([0x22, 0xff, 0xfe, 0x22]) },
  { what: 'no base64', type: json, body: '{"data":"***"}' },
  { what: 'two forms at once', type: json, body: '{"data":"","payload":1}' },
  { what: 'an unknown key', type: json, body: '{"payloda":1}' },
  { what: 'an unknown field', type: 'application/x-www-form-urlencoded', body: 'date=1' },
  { what: 'an unknown Content-Type', type: 'text/x-nothing', body: 'hi' },
  { what: 'an unknown parameter', type: octets, body: 'hi', query: 'iterations=1&piority=1' },
  { what: 'a parameter of every object', type: octets, body: 'hi', query: 'iterations=1&__proto__=1' },
  { what: 'an unknown type', type: octets, body: 'hi', query: 'type=no-such-type' },
  { what: 'an unknown queue', type: octets, body: 'hi', query: 'iterations=1&queue=nowhere' },
  { what: 'no iterations', type: octets, body: 'hi', query: 'iterations=0' },
  { what: 'too many attempts', type: octets, body: 'hi', query: 'iterations=1&attempts=1001' },
  { what: 'a payload that the schema refuses', type: json, body: '{"payload":{"ms":-1}}', query: 'type=sleep' },
]

export const hostileMoves: readonly Move[] = [
  {
    ...{ name: 'refused request', group: 'hostile', weight: 5, stream: 'users' },
    async run(stage, random) {
      const { what, type, body, query = 'iterations=1' } = random.pick(refused)
      await isRefused(stage, what, `/enqueue?${query}`, { 'content-type': type }, body)
    },
  },
  {
    ...{ name: 'damaged body', group: 'hostile', weight: 3, stream: 'users' },
    /** Any answer but 500 will do: what is accepted by chance is one more job that nobody knows. */
    async run(stage, random) {
      const { type, body } = random.pick(refused)
      const damaged = Buffer.from(body)
      for (let flips = random.int(1, 6); flips > 0 && damaged.length > 0; flips -= 1)
        damaged[random.int(0, damaged.length - 1)] = random.int(0, 255)
      const headers = { 'content-type': type }
      await doubtful(stage, 'd.echo', { headers, body: damaged })
    },
  },
  {
    ...{ name: 'deep JSON', group: 'hostile', weight: 1, stream: 'users' },
    async run(stage, random) {
      const depth = random.pick([10, 400, 4100, 4104, 4105, 4106, 4107, 4108, 4110, 5000, 100_000])
      const body = `{"payload":${'['.repeat(depth)}${']'.repeat(depth)}}`
      const headers = { 'content-type': json }
      await doubtful(stage, 'noop', { headers, body })
    },
  },
  {
    // What an existing deployment takes at most is not known.
    ...{ name: 'too large', group: 'hostile', weight: 0.5, stream: 'users', needs: 'deployment' },
    async run(stage, random) {
      const body = Buffer.alloc(stage.maxBodyBytes + random.pick([1, 100_000]))
      await isRefused(stage, 'too large a body', '/enqueue?iterations=1', { 'content-type': octets }, body)
    },
  },
  {
    ...{ name: 'pipelined and gone', group: 'hostile', weight: 1, stream: 'users' },
    /** Requests queue behind one that waits, and the client goes: nothing of them may stay. */
    async run({ http, model }, random) {
      const queue = random.pick(queueNames)
      const pulls = Array.from({ length: random.int(1, 4) }, () => ({
        method: 'POST',
        path: `/pullCompleted?top=1&queue=${queue}&waitMs=${random.int(100, 20_000)}`,
      }))
      const looks = Array.from({ length: random.int(0, 6) }, () => ({
        method: 'GET',
        path: random.pick(['/status', '/types', '/jobs', '/queues', '/livez', '/nowhere']),
      }))
      await http.sendAndGo([...pulls, ...looks], random.int(0, 150)).finally(() => {
        model.pullDoubted({ queue, at: Date.now(), top: pulls.length })
      })
    },
  },
  {
    ...{ name: 'slow client', group: 'hostile', weight: 0.5, stream: 'users' },
    /** Sends a body bit by bit, and often leaves before its end. */
    async run(stage, random) {
      const leaves = random.chance(0.6)
      const left = new AbortController()
      const chunks = random.int(2, 8)
      const body = new ReadableStream({
        async pull(controller) {
          for (let chunk = 0; chunk < chunks && !left.signal.aborted; chunk += 1) {
            controller.enqueue(new Uint8Array(random.int(1, 20_000)))
            await delay(random.int(1, 400))
          }
          if (leaves) left.abort()
          else controller.close()
        },
      })
      const call = { headers: { 'content-type': octets }, body, signal: left.signal }
      await doubtful(stage, 'd.echo', call)
    },
  },
]

/** It may be accepted or not; whatever it comes to then is right. */
async function doubtful({ http, model }: Stage, type: string, call: Call): Promise<void> {
  try {
    const reply = await http.call('PUT', `/enqueue?type=${type}`, call)
    if (reply.status === 200) model.acceptedUnjudged(String(reply.json()['Work ID']))
    else if (mayHaveSubmitted(reply)) model.submissionDoubted({ queue: 'default', type })
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error
    model.submissionDoubted({ queue: 'default', type })
  }
}

async function isRefused(
  { http, model }: Stage,
  what: string,
  path: string,
  headers: Record<string, string>,
  body: string | Buffer,
): Promise<void> {
  // What is refused has no Work ID: a job of it would be one that nobody submitted, and found at the end.
  const reply = await http.call('PUT', path, { headers, body })
  if (reply.status >= 400 && reply.status < 500) return
  if (reply.status === 503 || reply.status === 500) return
  model.fault('wrong answer', reply.at, `${what} was answered ${reply.status} ${reply.bytes.toString().slice(0, 200)}`)
}
