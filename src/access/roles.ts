/** Who calls, and what they may do: five roles, each for one kind of work with Muster. */

export const roles = ['submit', 'collect', 'work', 'read', 'operate'] as const
export type Role = (typeof roles)[number]

export const isRole = (word: string): word is Role => (roles as readonly string[]).includes(word)

/** Who sent a request. */
export interface Caller {
  /** anyone: on loopback, as long as there are no keys. operator: the key of the settings. worker: a worker token. */
  readonly kind: 'anyone' | 'key' | 'operator' | 'worker'
  /** Of the key; the instance of a worker token. */
  readonly id: string
  readonly name: string
  readonly roles: ReadonlySet<Role>
  /** The queues that it is bound to; undefined: all. */
  readonly queues: ReadonlySet<string> | undefined
  /** Of a worker token: whom it names. The first token of an instance names no worker yet. */
  readonly worker?: { readonly instanceId: string; readonly workerId: string | undefined; readonly expiresAt: number }
}

export const anyone: Caller = { kind: 'anyone', id: '-', name: 'anyone', roles: new Set(roles), queues: undefined }

export const mayUseQueue = ({ queues }: Pick<Caller, 'queues'>, queue: string): boolean =>
  queues === undefined || queues.has(queue)

/**
 * Who may call what: every route of the API, once. A route that is missing here does not start (api/plugins/access.ts),
 * and docs/access.md shows this table (`npm run openapi` writes it).
 */

/**
 * Where a request says which queue it is about; a key that is bound to queues may name no other one.
 *
 *   query, params, body, worker   the parameter `queue` there (`worker`: of the heartbeat); left out, it is `default`
 *   named                         the parameter `queue` of the query, which a bound key must give
 *   workId                        the Work ID names it
 *   filtered                      the reply shows only what is of its queues
 *   route                         the route looks for itself, since the request does not say it in one place
 *   all                           it is about all queues: nothing for a bound key
 */
export type QueueOf = 'query' | 'params' | 'body' | 'worker' | 'named' | 'workId' | 'filtered' | 'route' | 'all'

export interface RouteRule {
  /** Each of them may call it. */
  readonly roles: readonly Role[]
  readonly queue: QueueOf
  /** An operator's action: the name that it has in the audit log. */
  readonly audit?: string
}

/** No key is asked for; why. */
export interface OpenRoute {
  readonly open: string
}

const rule = (queue: QueueOf, ...roles: Role[]): RouteRule => ({ queue, roles })
const audited = (audit: string, queue: QueueOf, ...roles: Role[]): RouteRule => ({ queue, roles, audit })

export const routeRoles: Readonly<Record<string, RouteRule | OpenRoute>> = {
  'PUT /enqueue': rule('query', 'submit'),
  'POST /enqueue': rule('query', 'submit'),
  'POST /pullCompleted': rule('query', 'collect'),
  'POST /pullCompleted/ack': rule('route', 'collect'),
  'GET /status': rule('filtered', 'submit', 'collect', 'read', 'operate'),

  'GET /types': rule('filtered', 'submit', 'collect', 'read', 'operate'),

  'GET /jobs': rule('named', 'read', 'operate'),
  'GET /jobs/:workId': rule('workId', 'submit', 'collect', 'read', 'operate'),
  'GET /jobs/:workId/result': rule('workId', 'collect'),
  'GET /jobs/:workId/logs': rule('workId', 'collect', 'read', 'operate'),
  'DELETE /jobs/:workId': audited('job.cancel', 'workId', 'submit', 'operate'),
  'POST /jobs/:workId/retry': audited('job.retry', 'workId', 'operate'),

  'GET /queues': rule('filtered', 'read', 'operate'),
  'GET /queues/:queue': rule('params', 'read', 'operate'),
  'POST /queues/:queue/pause': audited('queue.pause', 'params', 'operate'),
  'POST /queues/:queue/resume': audited('queue.resume', 'params', 'operate'),
  'POST /queues/:queue/drain': audited('queue.drain', 'params', 'operate'),
  'POST /queues/:queue/retry': audited('queue.retry', 'params', 'operate'),

  'GET /fleet': rule('filtered', 'read', 'operate'),
  'GET /fleet/decisions': rule('named', 'read', 'operate'),
  'GET /fleet/decisions/:decisionId': rule('route', 'read', 'operate'),
  'GET /fleet/pools/:queue/decision': rule('params', 'read', 'operate'),
  'POST /fleet/spawn': audited('fleet.spawn', 'body', 'operate'),
  'POST /fleet/instances/:instanceId/terminate': audited('fleet.terminate', 'all', 'operate'),

  'PUT /handlers': audited('handlers.deploy', 'all', 'operate'),

  'POST /workers/heartbeat': rule('worker', 'work'),
  'POST /workers/claim': rule('body', 'work'),
  'POST /workers/complete': rule('body', 'work'),
  'POST /workers/return': rule('body', 'work'),
  'GET /workers/payloads/:workId': rule('workId', 'work'),
  'GET /workers/checkpoints/:workId': rule('workId', 'work'),
  'PUT /workers/checkpoints/:workId': rule('workId', 'work'),
  'PUT /workers/results/:workId': rule('workId', 'work'),
  'GET /workers/bundle.tgz': rule('route', 'work'),
  'GET /workers/handlers': rule('route', 'work'),
  'POST /workers/join': { open: 'asks for the join secret itself' },

  'POST /keys': audited('key.create', 'all', 'operate'),
  'GET /keys': rule('all', 'operate'),
  'POST /keys/:keyId/rotate': audited('key.rotate', 'all', 'operate'),
  'DELETE /keys/:keyId': audited('key.revoke', 'all', 'operate'),
  'GET /audit': rule('all', 'operate'),

  'GET /health/checks': rule('all', 'read', 'operate'),
  'GET /health/live': { open: 'for load balancers and supervisors' },
  'GET /health/ready': { open: 'for load balancers and supervisors' },
  'GET /livez': { open: 'as /health/live' },
  'GET /healthz': { open: 'as /health/live' },
  'GET /readyz': { open: 'as /health/ready' },
  'GET /': { open: 'says where everything is, the same for every node of this version' },
  'GET /docs': { open: 'the same for every node of this version: it tells nothing of this one' },
}

/** HEAD is GET without the body; all below /docs is the page. */
export function ruleOf(method: string, url: string): RouteRule | OpenRoute | undefined {
  const path = url === '/docs' || url.startsWith('/docs/') ? '/docs' : url.replace(/(?<=.)\/$/, '')
  return routeRoles[`${method === 'HEAD' ? 'GET' : method} ${path}`]
}

const queueWords: Readonly<Record<QueueOf, string>> = {
  query: 'its own',
  params: 'its own',
  body: 'its own',
  worker: 'its own',
  named: 'its own, which the call must name',
  workId: 'its own',
  filtered: 'sees only its own',
  route: 'its own',
  all: 'no',
}

/** The table as Markdown, for docs/access.md. */
export function routeTable(): string {
  const rows = Object.entries(routeRoles).map(([route, rule]) => {
    const name = `\`${route.replace(/:(\w+)/g, '{$1}')}\``
    if ('open' in rule) return `| ${name} | everybody: ${rule.open} | | |`
    const { roles, queue, audit } = rule
    return `| ${name} | ${roles.map(role => `\`${role}\``).join(', ')} | ${queueWords[queue]} | ${audit === undefined ? '' : `\`${audit}\``} |`
  })
  return ['| call | roles, one of | a key bound to queues | in the audit log |', '|---|---|---|---|', ...rows].join(
    '\n',
  )
}
