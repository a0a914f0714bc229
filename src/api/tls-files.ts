/**
 * The certificate and the key of this node. Looked at again and again, whoever renews them and however (in place, by
 * rename, through a link): a pair that fits is taken over without a restart, connections that are open go on. One that
 * does not fit, as in the middle of a renewal, is told once, and the pair before stays.
 */
import { readFile } from 'node:fs/promises'
import type { Server } from 'node:https'
import { createSecureContext } from 'node:tls'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'

export interface TlsPair {
  readonly cert: string
  readonly key: string
}

export interface TlsFilesOptions {
  readonly certFile: string
  readonly keyFile: string
  readonly log: Pick<Logger, 'info' | 'error'>
  /** Between two looks at the files (default 5,000). */
  readonly everyMs?: number
}

export const minVersion = 'TLSv1.2'

export class TlsFiles {
  readonly #options: TlsFilesOptions
  #taken: TlsPair | undefined
  /** What was seen last, good or not: it is told of once. */
  #seen = ''
  #timer: NodeJS.Timeout | undefined

  constructor(options: TlsFilesOptions) {
    this.#options = options
  }

  /** The first pair. @throws StartupError when it cannot be used */
  async read(): Promise<TlsPair> {
    const { certFile, keyFile } = this.#options
    try {
      const pair = await this.#load()
      this.#taken = pair
      this.#seen = textOf(pair)
      return pair
    } catch (error) {
      throw new StartupError(
        `MUSTER_TLS_CERT_FILE (${certFile}) and MUSTER_TLS_KEY_FILE (${keyFile}) cannot be used: ${(error as Error).message}`,
        { cause: error },
      )
    }
  }

  /** From now on the server follows the files. */
  follow(server: Pick<Server, 'setSecureContext'>): void {
    this.#timer ??= setInterval(() => void this.look(server), this.#options.everyMs ?? 5000).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** One look. @returns whether there was a new pair, and the server has it. Never throws. */
  async look(server: Pick<Server, 'setSecureContext'>): Promise<boolean> {
    const { log, certFile } = this.#options
    try {
      const pair = await this.#load()
      if (this.#taken !== undefined && textOf(pair) === textOf(this.#taken)) return false
      server.setSecureContext({ ...pair, minVersion })
      this.#taken = pair
      this.#seen = textOf(pair)
      log.info({ certFile }, 'the certificate was read again')
      return true
    } catch (error) {
      const seen = (error as Error).message
      if (seen !== this.#seen)
        log.error({ certFile, reason: seen }, 'the new certificate cannot be used; the one before stays')
      this.#seen = seen
      return false
    }
  }

  async #load(): Promise<TlsPair> {
    const [cert, key] = await Promise.all([
      readFile(this.#options.certFile, 'utf8'),
      readFile(this.#options.keyFile, 'utf8'),
    ])
    // Throws when either is no PEM, or they do not belong together.
    createSecureContext({ cert, key, minVersion })
    return { cert, key }
  }
}

const textOf = ({ cert, key }: TlsPair): string => `${cert}\n${key}`
