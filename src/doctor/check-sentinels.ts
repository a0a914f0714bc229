/** The Sentinels: whether there are enough of them to decide on a failover, and whether they agree. Pure. */
import type { RedisSurvey } from '../redis/inspect/survey.ts'
import { type Fault, type Finding, fail, ok, skipped, sum } from './finding.ts'

const desiredCount = 3

export function checkSentinels({ kind, sentinels, servers }: RedisSurvey): Finding[] {
  if (kind !== 'sentinel')
    return ['sentinels', 'sentinel-quorum', 'sentinel-agreement'].map(name => skipped(name, 'only with Sentinels'))
  const reached = sentinels.filter(({ error }) => error === undefined)
  if (reached.length === 0)
    return [
      checkReached(sentinels),
      skipped('sentinel-quorum', 'no Sentinel answers'),
      skipped('sentinel-agreement', 'no Sentinel answers'),
    ]
  return [checkReached(sentinels), checkQuorum(reached), checkAgreement(reached, servers)]
}

function checkReached(sentinels: RedisSurvey['sentinels']): Finding {
  const faults = sentinels.flatMap(({ where, error }): Fault[] =>
    error === undefined ? [] : [{ isGrave: true, text: `${where} does not answer: ${error}` }],
  )
  const reached = sentinels.filter(({ error }) => error === undefined)
  const ids = new Set(reached.map(({ id, where }) => id ?? where))
  if (ids.size < reached.length)
    faults.push({ isGrave: true, text: `${reached.length} addresses lead to ${ids.size} Sentinels` })
  if (sentinels.length < desiredCount)
    faults.push({ isGrave: true, text: `MUSTER_REDIS_URL names ${sentinels.length} of ${desiredCount}` })
  for (const { where, others } of reached)
    if (others.length + 1 < desiredCount)
      faults.push({ isGrave: true, text: `${where} knows only ${others.length} other Sentinels` })
  return sum(
    'sentinels',
    faults,
    'Run three, each on a machine of its own ("muster redis run" starts one with each server), and name all in MUSTER_REDIS_URL. With two left, the loss of one more prevents a failover.',
    reached.map(({ where }) => where).join(', '),
  )
}

function checkQuorum(reached: RedisSurvey['sentinels']): Finding {
  const without = reached.filter(({ quorum }) => !quorum.startsWith('OK'))
  if (without.length === 0) return ok('sentinel-quorum', 'a failover can be decided')
  return fail(
    'sentinel-quorum',
    without.map(({ where, quorum }) => `${where}: ${quorum}`).join('; '),
    'Start the missing Sentinels: until then no replica takes over when the primary is lost.',
  )
}

function checkAgreement(reached: RedisSurvey['sentinels'], servers: RedisSurvey['servers']): Finding {
  const named = new Set(reached.map(({ primary }) => primary))
  const list = reached.map(({ where, primary }) => `${where} names ${primary}`).join(', ')
  if (named.size > 1)
    return fail(
      'sentinel-agreement',
      list,
      'After a failover this takes some seconds: look again. If it stays so, one of them is cut off from the others.',
    )
  const [primary] = named
  const server = servers.find(({ where }) => where === primary)
  if (server?.error === undefined && server?.info.role === 'replica')
    return fail(
      'sentinel-agreement',
      `all name ${primary}, which is a replica`,
      'A failover may be under way: look again in 10 s.',
    )
  return ok('sentinel-agreement', `all name ${primary}`)
}
