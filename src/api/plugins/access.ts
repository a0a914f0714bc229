/**
 * Authentication and authorization: finds the caller of every request, and checks that it has a role of the route
 * (access/roles.ts) and the queue that it is about. What operators do goes to the log and to the audit log before the
 * reply leaves.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { anyone, type Caller, mayUseQueue, type QueueOf, type RouteRule, ruleOf } from '../../access/roles.ts'
import { Problem } from '../../errors.ts'
import { queueOfWorkId } from '../../jobs/work-id.ts'
import { isLoopback } from '../../settings/validate.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

/** What a route adds to the entry of an action in the audit log; never a secret. */
export interface Audited {
  target?: string
  details?: Record<string, unknown>
}

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller
    audited: Audited
  }
  interface FastifyContextConfig {
    rule?: RouteRule
  }
}

/** To be added before the routes. */
export function addAccess(app: App, api: Api): void {
  app.decorateRequest('caller')
  app.decorateRequest('audited')

  app.addHook('onRoute', route => {
    const { method, url } = route
    const rules = [method].flat().map(one => ruleOf(one, url))
    const [rule] = rules
    // Closed by default: a route without an entry is not served.
    if (rule === undefined) throw new Error(`${method} ${url} has no entry in src/access/roles.ts`)
    if ('open' in rule) return
    route.config = { ...route.config, rule }
    const responses = (route.schema?.response ?? {}) as Record<number, unknown>
    route.schema = Object.assign(route.schema ?? {}, {
      security: [{ bearer: [...rule.roles] }],
      response: { ...problems('unauthenticated', 'forbidden'), ...responses },
    })
    const { audit } = rule
    if (audit !== undefined) {
      const note = async (request: FastifyRequest, reply: FastifyReply): Promise<void> =>
        await record(request, reply.statusCode, audit)
      route.onSend = [...[route.onSend ?? []].flat(), note as never]
    }
    const look = queueChecks[rule.queue]
    if (look !== undefined) {
      const check = (request: FastifyRequest, _reply: FastifyReply, done: (fault?: Error) => void): void => {
        done(request.caller.queues === undefined ? undefined : faultOf(request.caller, look(request)))
      }
      route.preHandler = [check as never, ...[route.preHandler ?? []].flat()]
    }
  })

  app.addHook('onRequest', (request, _reply, done) => {
    request.caller = anyone
    request.audited = {}
    const { rule } = request.routeOptions.config
    if (rule === undefined) return done()
    const settle = (caller: Caller): void => {
      request.caller = caller
      if (caller.kind === 'anyone' && isFromWebPage(request)) done(new Problem('forbidden', fromWebPage))
      else done(rule.roles.some(role => caller.roles.has(role)) ? undefined : lacking(caller, rule))
    }
    try {
      const stale = api.access.freshen()
      const caller = stale?.then(() => identify(request)) ?? identify(request)
      if (caller instanceof Promise) caller.then(settle, done)
      else settle(caller)
    } catch (error) {
      done(error as Error)
    }
  })

  const identify = (request: FastifyRequest): Caller | Promise<Caller> =>
    api.access.identify(request.headers.authorization)

  async function record(request: FastifyRequest, status: number, action: string): Promise<void> {
    const { caller, audited, ip, params } = request
    // Unknown callers changed nothing, and must not push real entries out of the log.
    if (status === 401) return
    const [first = '-'] = Object.values((params ?? {}) as Record<string, string>)
    const entry = {
      at: Date.now(),
      who: { kind: caller.kind, id: caller.id, name: caller.name },
      ip,
      action,
      target: audited.target ?? first.slice(0, 200),
      status,
      requestId: request.id,
      ...(audited.details !== undefined && { details: audited.details }),
    }
    request.log.info({ audit: true, ...entry }, `audit: ${action}`)
    if (status === 403) return
    await api.access.audit
      .write(entry)
      .catch((error: unknown) =>
        request.log.error({ err: error, requestId: request.id }, 'an action is missing in the audit log'),
      )
  }
}

/** @throws Problem forbidden, when the caller is bound to other queues */
export function requireQueue(caller: Caller, queue: string): void {
  const fault = faultOf(caller, queue)
  if (fault !== undefined) throw fault
}

const fromWebPage =
  'This node has no keys and answers only programs on its own machine: not the pages of other sites, and under no other name than localhost.'

/** A browser sends what any page asks for, and a page may point its own name to this machine (DNS rebinding). */
function isFromWebPage({ headers, hostname, host, protocol }: FastifyRequest): boolean {
  const site = headers['sec-fetch-site']
  if (site === 'cross-site' || site === 'same-site') return true
  // Not every browser says what it fetches for, but each names the page that sends something. "null" is no page of
  // ours.
  if (headers.origin !== undefined && headers.origin.toLowerCase() !== `${protocol}://${host}`.toLowerCase())
    return true
  const name = hostname.replace(/^\[|\]$/g, '')
  return !isLoopback(name) && !name.endsWith('.localhost')
}

const lacking = ({ name, kind }: Caller, { roles }: RouteRule): Problem =>
  new Problem(
    'forbidden',
    `This takes the role ${roles.map(role => `"${role}"`).join(' or ')}; ${kind === 'key' ? `the key "${name}"` : name} has none of them.`,
  )

type Named = { readonly queue?: string }

/** Which queue a request is about; undefined: it names none, or it is about all. */
const queueChecks: Readonly<Partial<Record<QueueOf, (request: FastifyRequest) => string | undefined>>> = {
  query: ({ query }) => (query as Named).queue ?? 'default',
  params: ({ params }) => (params as Named).queue,
  body: ({ body }) => (body as Named | undefined)?.queue ?? 'default',
  worker: ({ body }) => (body as { worker: Named }).worker.queue,
  named: ({ query }) => (query as Named).queue,
  // An invalid Work ID belongs to no queue: no caller has such a job.
  workId: ({ params, caller }) => queueOfWorkId((params as { workId: string }).workId) ?? [...(caller.queues ?? [])][0],
  all: () => undefined,
}

function faultOf({ queues }: Caller, queue: string | undefined): Problem | undefined {
  if (queues === undefined || (queue !== undefined && mayUseQueue({ queues }, queue))) return undefined
  const own = [...queues].map(name => `"${name}"`).join(', ')
  return new Problem(
    'forbidden',
    queue === undefined
      ? `This key is bound to ${own}: name the queue where the call takes one; what concerns all queues is not for it.`
      : `This key is bound to ${own}, and may do nothing in "${queue.slice(0, 100)}".`,
  )
}
