/**
 * How ioredis gets to the primary that Sentinels know. It takes the place of the connector that comes with ioredis,
 * which asks one Sentinel after the other (a second for each host that is gone), believes the first that answers (after
 * a switch that may be an old answer), and can end a client for good when the switch comes while it resolves.
 *
 *   disconnected ──connect()──▶ asking ──▶ connecting(primary) ─▶ connected(primary)
 *                                 ▲  none can tell: again │              │ a switch to another, close
 *                                 └───────────────────────┴──────────────┘ ioredis connects again
 */
import { connect as connectTcp } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { AbstractConnector, type Redis, type RedisOptions } from 'ioredis'
import { describeHost, type HostAndPort, type TlsOptions } from './address.ts'
import type { Sentinels } from './sentinels.ts'

/** The Sentinels of a client, and the signal that is aborted when it is closed. */
export interface Following {
  readonly sentinels: Sentinels
  readonly user: AbortSignal
}

/** A primary that is stopped does not answer the end of a connection either. */
const disconnectTimeoutMs = 100

/** Where each connection leads, as the Sentinels told it. */
const primaries = new WeakMap<object, HostAndPort>()

/** The server behind a connection of a client that asks Sentinels; undefined when there is none, or no Sentinels. */
export const primaryBehind = ({ stream }: Redis): HostAndPort | undefined =>
  (stream as object | undefined) === undefined ? undefined : primaries.get(stream)

/** The class of connectors for one client, which asks these Sentinels and listens to them. */
export function sentinelConnector(
  { sentinels, user }: Following,
  tls: TlsOptions | undefined,
): NonNullable<RedisOptions['Connector']> {
  return class SentinelConnector extends AbstractConnector {
    #primary: HostAndPort | undefined

    constructor() {
      super(disconnectTimeoutMs)
      sentinels.onSwitch(user, primary => {
        if (this.#primary === undefined || describeHost(this.#primary) === describeHost(primary)) return
        this.#primary = undefined
        this.stream?.destroy()
      })
    }

    /** ioredis asks this of each connection before it uses it; false: disconnect and connect again. */
    override check({ role }: { role?: string }): boolean {
      return role === undefined || role === 'master'
    }

    override async connect(emit: (type: string, error: Error) => void): Promise<NonNullable<typeof this.stream>> {
      this.connecting = true
      const primary = await this.#find(emit)
      this.#primary = primary
      const stream = tls === undefined ? connectTcp(primary) : connectTls({ ...primary, ...tls })
      stream.once('error', error => {
        this.firstError = error
      })
      primaries.set(stream, primary)
      this.stream = stream
      return stream
    }

    async #find(emit: (type: string, error: Error) => void): Promise<HostAndPort> {
      for (let round = 1; this.connecting; round += 1) {
        try {
          const primary = await sentinels.primary()
          if (this.connecting) return primary
        } catch (error) {
          emit('error', error as Error)
          await delay(Math.min(50 * round, 500))
        }
      }
      throw new Error('Connection is closed.')
    }
  }
}
