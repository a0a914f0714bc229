/** The nodes: whether each answers and is ready, and whether they go together. Pure. */
import { version as ownVersion } from '../version.ts'
import type { NodeView } from './ask-nodes.ts'
import { type Fault, type Finding, fail, ok, skipped, sum, warn } from './finding.ts'

export function checkNodes(views: readonly NodeView[]): Finding[] {
  const answering = views.filter(({ error }) => error === undefined)
  return [checkLive(views), checkReady(answering), ...checkTogether(views, answering)]
}

function checkLive(views: readonly NodeView[]): Finding {
  const faults = views.flatMap(({ url, error }): Fault[] =>
    error === undefined ? [] : [{ isGrave: true, text: `${url}: ${error}` }],
  )
  return sum(
    'nodes-live',
    faults,
    'Start the node there ("muster node", or its service), and see that this machine may reach its port. Is MUSTER_NODE_URLS (or --url) right?',
    `${views.length === 1 ? 'the node answers' : `all ${views.length} nodes answer`}: ${views.map(({ url }) => url).join(', ')}`,
  )
}

function checkReady(views: readonly NodeView[]): Finding {
  const faults = views.flatMap(({ url, notReady, report }): Fault[] => {
    if (notReady !== undefined) return [{ isGrave: true, text: `${url}: ${notReady}` }]
    const why = report?.overloaded
    return why === undefined ? [] : [{ isGrave: true, text: `${url} takes no new work. ${why}` }]
  })
  if (views.length === 0) return skipped('nodes-ready', 'no node answers')
  return sum(
    'nodes-ready',
    faults,
    'A node that stays so cannot reach Redis, lacks memory or disk, or is stopping: see its log, and the checks of Redis and disk below.',
    'each of them takes work',
  )
}

/** What only their reports tell. */
function checkTogether(views: readonly NodeView[], answering: readonly NodeView[]): Finding[] {
  const names = ['nodes-version', 'nodes-redundant', 'nodes-redis', 'nodes-durability']
  const known = answering.flatMap(({ url, report }) => (report === undefined ? [] : [{ url, report }]))
  if (known.length === 0) {
    const why = answering.some(({ noReport }) => noReport === 'not let in')
      ? 'the nodes do not let this command look inside: set MUSTER_API_KEY to a key with the role read'
      : 'no node tells of itself'
    return names.map(name => skipped(name, why))
  }
  return [checkVersions(answering), checkRedundant(views, known), checkOwnRedis(known), checkDurability(known)]
}

type Known = readonly { readonly url: string; readonly report: NonNullable<NodeView['report']> }[]

function checkVersions(answering: readonly NodeView[]): Finding {
  const said = answering.map(({ url, report }) => ({ url, version: report?.version ?? 'unknown' }))
  const versions = new Set(said.map(({ version }) => version))
  const list = said.map(({ url, version }) => `${url} ${version}`).join(', ')
  if (versions.size > 1) return fail('nodes-version', list, 'Bring all nodes to the same version, one after the other.')
  if (!versions.has(ownVersion))
    return warn('nodes-version', `${list}, this command ${ownVersion}`, 'Use the command of the same version.')
  return ok('nodes-version', ownVersion)
}

function checkRedundant(views: readonly NodeView[], known: Known): Finding {
  const ids = new Map<string, string[]>()
  for (const { url, report } of known) ids.set(report.nodeId, [...(ids.get(report.nodeId) ?? []), url])
  const same = [...ids.values()].find(urls => urls.length > 1)
  if (same !== undefined)
    return warn(
      'nodes-redundant',
      `${same.join(' and ')} lead to the same node`,
      'Name each node once in MUSTER_NODE_URLS, by an address of its own (not that of a load balancer).',
    )
  if (known[0]?.report.redis.kind === 'embedded') return skipped('nodes-redundant', 'one machine, with its own Redis')
  if (views.length > 1) return ok('nodes-redundant', `${views.length} nodes`)
  return warn(
    'nodes-redundant',
    'only one node is known',
    'Run a second one on another machine, and name both in MUSTER_NODE_URLS.',
  )
}

const slowMs = 200

function checkOwnRedis(known: Known): Finding {
  const faults = known.flatMap(({ url, report: { redis } }): Fault[] => {
    if (redis.error !== undefined) return [{ isGrave: true, text: `${url}: ${redis.error}` }]
    return (redis.pingMs ?? 0) > slowMs ? [{ isGrave: false, text: `${url}: Redis takes ${redis.pingMs} ms` }] : []
  })
  return sum(
    'nodes-redis',
    faults,
    'See that the node may reach Redis (network, MUSTER_REDIS_URL, certificate), and that Redis is not overloaded.',
    known.map(({ url, report }) => `${url} ${report.redis.pingMs} ms`).join(', '),
  )
}

function checkDurability(known: Known): Finding {
  const said = [...new Set(known.map(({ report }) => report.durability))]
  if (said.length > 1)
    return fail(
      'nodes-durability',
      known.map(({ url, report }) => `${url} ${report.durability}`).join(', '),
      'Set MUSTER_DURABILITY to the same on all nodes.',
    )
  const isLess = said[0] === 'local' && known.some(({ report }) => report.redis.kind === 'sentinel')
  return isLess
    ? warn(
        'nodes-durability',
        'local, although there are replicas: what is acknowledged can be lost with the primary',
        'Set MUSTER_DURABILITY=replicated, or unset it.',
      )
    : ok('nodes-durability', said[0] as string)
}
