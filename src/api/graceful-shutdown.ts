/**
 * How the server of a node leaves, without a request that fails:
 *
 *   serving ──stopping──▶ leaving (not ready, long polls end, replies say "Connection: close") ──close──▶ closed
 *
 * Whoever is told so opens the next connection elsewhere; so the port is closed to nobody who could know better.
 */
import { Server } from 'node:net'
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import type { Logger } from 'pino'
import { within } from '../within.ts'
import type { App } from './api.ts'

/** From `stopping` on every reply ends its connection, and says why to workers: proxies end connections, too. */
export function addFarewell(app: App, stopping: AbortSignal): void {
  app.addHook('onSend', (_request, reply, _payload, done) => {
    if (stopping.aborted) void reply.header('connection', 'close').header('muster-leaving', '1')
    done()
  })
}

export interface CloseOptions {
  /** How long who was let in just before may still say what they want. */
  readonly lateMs: number
  /** How long requests under way may go on then; what is still open after it is cut off. */
  readonly inFlightMs: number
  readonly log: Logger
}

/** Closes the port, then waits for the replies under way. Returns when all is closed. */
export async function closeApp(app: App, { lateMs, inFlightMs, log }: CloseOptions): Promise<void> {
  // What has arrived by now is read before idle connections are looked for: it belongs to no idle one.
  await turn()
  // Not app.close() yet: that ends connections whose request is still on its way.
  const closed = new Promise<void>(resolve => void Server.prototype.close.call(app.server, () => resolve()))
  await Promise.race([closed, delay(lateMs)])
  app.server.closeIdleConnections()
  try {
    await within(inFlightMs, 'Requests under way', closed)
  } catch {
    log.warn({ inFlightMs }, 'requests were still under way when the node had to stop; they are cut off')
    app.server.closeAllConnections()
    await closed
  }
  await app.close()
}
