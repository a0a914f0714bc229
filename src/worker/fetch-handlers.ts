/** The handlers that a worker runs when it has none of its own: those of the nodes. */
import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import type { HandlersBundle } from '../handlers/bundle-handlers.ts'
import type { Settings } from '../settings.ts'
import { trustedAuthorities } from '../trusted-authorities.ts'
import { Backoff } from './backoff.ts'
import { NodeClient } from './node-client.ts'
import { NodeError } from './node-error.ts'

/**
 * Asks until a node answers, or for workerOrphanMs.
 * @returns undefined when they have none but the built-in ones, or none answers
 * @throws StartupError when they are not what the node says they are
 */
export async function fetchHandlers(settings: Settings, log: Logger): Promise<HandlersBundle | undefined> {
  const ca = trustedAuthorities(settings.caFile)
  const { nodeUrls, workerToken: token } = settings
  const client = new NodeClient({ nodeUrls, token, log, ...(ca !== undefined && { ca }) })
  const signal = AbortSignal.timeout(settings.workerOrphanMs)
  const backoff = new Backoff(100, 2000)
  try {
    while (!signal.aborted) {
      try {
        const found = await client.handlers({ rounds: 1, signal })
        return found === undefined ? undefined : checkedBundle(found)
      } catch (error) {
        // Whether it may come in is for its first heartbeat to find out.
        if (error instanceof NodeError && error.status >= 400 && error.status < 500 && error.status !== 429)
          return undefined
        if (error instanceof StartupError) throw error
        if (!signal.aborted) await backoff.wait(signal)
      }
    }
    return undefined
  } finally {
    await client.close()
  }
}

/** @throws StartupError when it is not what its digest names */
export function checkedBundle({ code, digest }: HandlersBundle): HandlersBundle {
  if (createHash('sha256').update(code).digest('hex') === digest) return { code, digest }
  throw new StartupError('The handlers that a node sent are not those of the digest beside them.')
}
