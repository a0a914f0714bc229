/** Counts every request while it is here, and refuses those of a caller that has too much under way (admission.ts). */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Settings } from '../../settings.ts'
import { Admission, type Stay, type Visitor } from '../admission.ts'
import { limitConnections } from '../connections.ts'
import { Pace } from '../pace.ts'

declare module 'fastify' {
  interface FastifyRequest {
    stay: Stay
  }
}

/** Bodies in other forms are streamed: this is about what is in memory of one at a time. */
const streamBytes = 64 * 1024
/** Smaller replies are not counted: the number of requests bounds them. */
const countedReplyBytes = 64 * 1024

/** Probes: O(1), with a small reply. A flood from the same address must not make the node look dead. */
const probes = new Set(['/health/live', '/health/ready', '/livez', '/healthz', '/readyz'])

/** To be added after access, whose callers it counts. */
export function addAdmission(app: FastifyInstance, settings: Settings): void {
  const admission = new Admission({ maxRequests: settings.maxRequestsPerCaller, maxBytes: settings.maxPendingBytes })
  const pace = new Pace()
  app.decorateRequest('stay')
  limitConnections(app.server, settings.maxConnections)
  app.addHook('onReady', async () => pace.start())
  app.addHook('onClose', async () => pace.stop())

  app.addHook('onRequest', (request, reply, done) => {
    try {
      const stay = admission.enter(visitorOf(request), bytesOf(request, settings.maxJsonBytes))
      request.stay = stay
      const forget = pace.watch(request.raw, reply.raw)
      const end = (): void => {
        forget()
        stay.end()
      }
      if (reply.raw.destroyed) end()
      else reply.raw.once('close', end)
      done()
    } catch (error) {
      done(error as Error)
    }
  })

  app.addHook('onSend', (request, _reply, payload, done) => {
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? payload.length : 0
    // The body of the request is done with. A reply that was refused before it came in has no stay.
    request.stay?.hold(bytes > countedReplyBytes ? bytes : 0)
    done(null, payload)
  })
}

function visitorOf(request: FastifyRequest): Visitor {
  const { caller, ip, routeOptions } = request
  const { rule } = routeOptions.config
  if (probes.has(routeOptions.url ?? '')) return { key: 'probes', isFirst: true, isStranger: false }
  if (rule === undefined) return { key: `open ${ip}`, isFirst: false, isStranger: true }
  const isForFew = rule.roles.every(role => role === 'work' || role === 'operate')
  const isFirst = isForFew || caller.kind === 'operator' || caller.kind === 'worker'
  const key = caller.kind === 'anyone' ? `address ${ip}` : `${caller.kind} ${caller.id}`
  return { key: isFirst ? `first ${key}` : key, isFirst, isStranger: false }
}

function bytesOf({ headers }: FastifyRequest, maxJsonBytes: number): number {
  const length = headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : maxJsonBytes
  const isBuffered = /^application\/(?:json|x-www-form-urlencoded)/i.test(headers['content-type'] ?? '')
  return Math.min(length, isBuffered ? maxJsonBytes : streamBytes)
}
