/** Looks at the hosts from the host `control`, which no fault touches. */
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import type { Network } from './network.ts'
import { startTask } from './task-process.ts'

export interface HttpProbe {
  readonly kind: 'http'
  readonly method: 'GET' | 'POST'
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly json?: unknown
  readonly withinMs?: number
}

export interface RedisProbe {
  readonly kind: 'redis'
  readonly host: string
  readonly port: number
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** With it: TLS. */
  readonly caFile?: string | undefined
  readonly tlsName?: string | undefined
  readonly commands: readonly (readonly string[])[]
}

export interface ProbeRequest {
  readonly id: number
  readonly probe: HttpProbe | RedisProbe
}

export type ProbeReply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: string }

const withinMs = 10_000

export class Probe {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (reply: ProbeReply) => void>()
  #lastId = 0

  constructor(network: Network, runPath: string) {
    const folder = join(runPath, 'hosts', 'control')
    this.#child = startTask({ file: 'probe-process', network, host: 'control', folder })
    this.#child.on('message', (reply: ProbeReply) => this.#waiting.get(reply.id)?.(reply))
  }

  /** @throws Error when there is no answer */
  async http(probe: Omit<HttpProbe, 'kind'>): Promise<{ status: number; text: string }> {
    return (await this.#ask({ kind: 'http', ...probe })) as { status: number; text: string }
  }

  /** @throws Error when it cannot be reached, or a command fails */
  async redis(probe: Omit<RedisProbe, 'kind'>): Promise<unknown[]> {
    return (await this.#ask({ kind: 'redis', ...probe })) as unknown[]
  }

  stop(): void {
    this.#child.kill('SIGKILL')
  }

  #ask(probe: ProbeRequest['probe']): Promise<unknown> {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      const finish = (reply: ProbeReply): void => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        if ('error' in reply) reject(new Error(reply.error))
        else resolve(reply.result)
      }
      const timer = setTimeout(() => finish({ id, error: 'no answer from the probe' }), withinMs)
      this.#waiting.set(id, finish)
      this.#child.send({ id, probe }, error => error !== null && finish({ id, error: error.message }))
    })
  }
}
