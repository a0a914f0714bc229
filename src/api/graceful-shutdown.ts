/**
 * Closes the server of a node without failing a request:
 *
 *   serving ──stopping──▶ leaving (not ready, long polls end, replies say "Connection: close") ──close──▶ closed
 *
 * A reply with "Connection: close" tells the client to connect elsewhere. The port closes after clients had the time
 * for it.
 */
import { Server } from 'node:net'
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import type { Logger } from 'pino'
import { within } from '../within.ts'
import type { App } from './api.ts'

/**
 * Once the node stops, each reply closes its connection. A header tells workers why, since proxies close connections
 * too.
 */
export function addShutdownNotice(app: App, stopping: AbortSignal): void {
  app.addHook('onSend', (_request, reply, _payload, done) => {
    if (stopping.aborted) void reply.header('connection', 'close').header('muster-leaving', '1')
    done()
  })
}

export interface CloseOptions {
  /** How long clients that connected just before the close may still send their request. */
  readonly lateMs: number
  /** How long requests in flight may continue after that; the rest is cut off. */
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
