/**
 * Asks the Sentinels whether a server is the primary and stays it for now. Each has a connection that stays open, so that
 * a question costs one round trip to the second slowest of them.
 *
 * What it is for: a write that one of two replicas has is safe only if the other one is not about to become primary. A
 * switch is seen here before it happens: an election needs a majority that sees the primary down, and the Sentinel that
 * leads a switch, a planned one too, says so before it promotes anybody.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Redis, type RedisOptions } from 'ioredis'
import { describeHost, type HostAndPort } from './address.ts'

const answerWithinMs = 500

export class SentinelWitness {
  readonly #name: string
  readonly #clients: readonly Redis[]

  /** @param options how a Sentinel is reached: credentials and TLS */
  constructor(name: string, addresses: readonly HostAndPort[], options: RedisOptions) {
    this.#name = name
    this.#clients = addresses.map(({ host, port }) => {
      const client = new Redis({
        ...options,
        host,
        port,
        lazyConnect: true,
        enableReadyCheck: false,
        enableOfflineQueue: false,
        maxRetriesPerRequest: 0,
        autoResendUnfulfilledCommands: false,
        retryStrategy: times => Math.min(50 * times, 1000) + Math.random() * 50,
      })
      client.on('error', () => undefined)
      client.connect().catch(() => undefined)
      return client
    })
  }

  /**
   * Whether most of the Sentinels answer within 0.5 s that this is the primary and that nothing is wrong with it, and none
   * that answers knows another one or of a switch. All answers are given after the question: what was true before it
   * does not count.
   */
  async vouchesFor(primary: HostAndPort): Promise<boolean> {
    const late = new AbortController()
    const timeout = delay(answerWithinMs, undefined, { ref: false, signal: late.signal }).catch(() => undefined)
    const answers = await Promise.all(
      this.#clients.map(client => Promise.race([this.#ask(client), timeout.then(() => hangUp(client))])),
    ).finally(() => late.abort())
    const given = answers.filter(answer => answer !== undefined)
    const isDoubted = given.some(
      ({ address, flags }) => address !== describeHost(primary) || /failover_in_progress|o_down/.test(flags),
    )
    // A single one that sees it down (s_down) can have it replaced only with another that does.
    const content = given.filter(({ flags }) => flags === 'master')
    return !isDoubted && content.length * 2 > this.#clients.length
  }

  close(): void {
    for (const client of this.#clients) client.disconnect()
  }

  async #ask(client: Redis): Promise<{ address: string; flags: string } | undefined> {
    if (client.status !== 'ready') return undefined
    try {
      const flat = (await client.call('SENTINEL', 'MASTER', this.#name)) as string[]
      const fact = (key: string): string => flat[flat.findIndex((item, at) => at % 2 === 0 && item === key) + 1] ?? ''
      return { address: describeHost({ host: fact('ip'), port: Number(fact('port')) }), flags: fact('flags') }
    } catch {
      return undefined
    }
  }
}

/** A host that vanished never ends the connection. */
function hangUp(client: Redis): undefined {
  if (client.status === 'ready') client.stream?.destroy()
}
