/** Two nodes on one Redis, restarted in turn under load. */
import { Agent, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { startTestRedis } from '../support/redis.ts'
import { type Body, startNodes, startWorker } from '../support/two-nodes.ts'
import { patienceMs, until } from '../support/until.ts'

interface Answer {
  readonly status: number
  readonly body: Body
  /** The node closes the connection: the next request goes elsewhere. */
  readonly isLast: boolean
}

/** One request, over the connection that the agent keeps. Rejects with the error of the socket. */
async function call(agent: Agent, method: string, url: string, body?: string): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' }
    const sent = request(url, { method, agent, headers, timeout: patienceMs }, response => {
      let text = ''
      response.on('data', chunk => {
        text += chunk
      })
      response.on('error', reject)
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          body: JSON.parse(text),
          isLast: response.headers.connection === 'close',
        }),
      )
    })
    sent.on('timeout', () => sent.destroy(new Error('no answer within 20 s')))
    sent.on('error', reject)
    sent.end(body)
  })
}

/**
 * A client with one kept connection to each node, that talks to one until it says goodbye or takes no connection. All
 * else that is not a 200 is a failure.
 */
class Client {
  readonly failures: string[] = []
  readonly #agents: readonly Agent[]
  readonly #urls: readonly string[]
  #at: number
  moves = 0

  constructor(urls: readonly string[], at: number) {
    this.#urls = urls
    this.#agents = urls.map(() => new Agent({ keepAlive: true, maxSockets: 1 }))
    this.#at = at % urls.length
  }

  async ask(method: string, path: string, body?: string): Promise<Body | undefined> {
    for (let tries = 0; tries < 20; tries += 1) {
      const at = this.#at
      try {
        const answer = await call(this.#agents[at] as Agent, method, this.#urls[at] + path, body)
        if (answer.isLast) this.#move(at)
        if (answer.status === 200) return answer.body
        this.failures.push(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
        return undefined
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException
        if (code !== 'ECONNREFUSED') {
          this.failures.push(`${method} ${path}: ${code} ${message}`)
          return undefined
        }
        this.#move(at)
        await delay(20) // pause: the client's, before it asks the next node
      }
    }
    this.failures.push(`${method} ${path}: nobody takes the connection`)
    return undefined
  }

  close(): void {
    for (const agent of this.#agents) agent.destroy()
  }

  #move(from: number): void {
    if (this.#at !== from) return
    this.#at = (from + 1) % this.#urls.length
    this.moves += 1
  }
}

t.test('both restarted in turn under load: no request fails', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const nodes = await startNodes(t, redis)
  const urls = nodes.map(({ url }) => url)
  await startWorker(t, nodes)
  const clients = Array.from({ length: 7 }, (_, at) => new Client(urls, at))
  const [seldom, puller, slowPuller, ...busy] = clients as [Client, Client, Client, ...Client[]]
  const put: string[] = []
  const pulled: string[] = []
  let isOver = false
  let isGivenUp = false
  t.teardown(() => {
    isOver = true
    isGivenUp = true
    for (const client of clients) client.close()
  })
  const submit = async (client: Client, pauseMs: number): Promise<void> => {
    while (!isOver) {
      const reply = await client.ask('PUT', '/enqueue?type=noop', '{"payload":null}')
      if (reply !== undefined) put.push(reply['Work ID'])
      await delay(pauseMs) // pause: the pace of the load
    }
  }
  const pull = async (client: Client, waitMs: number): Promise<void> => {
    while (!isGivenUp && (!isOver || pulled.length < put.length)) {
      const reply: Body[] = (await client.ask('POST', `/pullCompleted?top=20&waitMs=${waitMs}`)) ?? []
      pulled.push(...reply.map(entry => entry['Work ID']))
      if (client.failures.length > 0) return
    }
  }
  const work = [
    submit(seldom, 1000),
    ...busy.map(client => submit(client, 50)),
    pull(puller, 200),
    // The results come to whoever asks first: this one mostly waits, and its wait must end well.
    pull(slowPuller, 5000),
  ]
  await until(() => pulled.length > 30)
  for (const node of nodes) {
    const before = pulled.length
    node.kill('SIGTERM')
    await until(async () => (await fetch(`${node.url}/health/ready`)).status === 503)
    t.equal((await fetch(`${node.url}/health/live`)).status, 200, 'the port is open while it leaves')
    t.equal(await node.ended(), 0)
    await until(() => pulled.length > before + 30)
    await node.restart()
    await until(async () => (await fetch(`${node.url}/health/ready`)).status === 200)
  }
  isOver = true
  await Promise.all(work)
  t.strictSame(
    clients.flatMap(({ failures }) => failures),
    [],
    `0 of ${put.length} failed`,
  )
  t.ok(put.length > 200, `${put.length} were put`)
  t.strictSame(pulled.toSorted(), put.toSorted(), 'each came back once')
  t.ok(
    busy.every(({ moves }) => moves >= 1),
    'all of them moved',
  )
})

t.test('the lease of the fleet passes on', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const client = await redis.client()
  const holder = async (): Promise<string | null> => await client.get('{muster}:fleet:leader')
  const [a, b] = await startNodes(t, redis, { MUSTER_SHUTDOWN_GRACE_MS: '6000' })
  const first = await holder()
  t.ok(first, 'the first one holds it')
  const passedOnFrom = async (from: string | null): Promise<void> =>
    await until(async () => ![from, null].includes(await holder()))
  a.kill('SIGTERM')
  await passedOnFrom(first)
  t.equal((await fetch(`${a.url}/health/live`)).status, 200, 'while it still serves')
  t.equal(await a.ended(), 0)
  await a.restart()
  const second = await holder()
  b.kill('SIGKILL')
  await passedOnFrom(second)
  t.pass('once it has run out')
})
