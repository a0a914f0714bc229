/**
 * `muster doctor`: looks at a deployment from outside (nodes, Redis, AWS) and inside (what nodes tell of themselves),
 * and says what is wrong and how to fix it. It changes nothing. What it cannot see from where it runs, it says.
 */
import { stat, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { StartupError } from '../errors.ts'
import { type RedisTarget, targetOf } from '../redis/connect/address.ts'
import { type RedisSurvey, surveyRedis } from '../redis/inspect/survey.ts'
import { embeddedFiles } from '../redis-server/embedded-config.ts'
import type { Settings } from '../settings/settings.ts'
import { askNodes, type NodeView } from './ask-nodes.ts'
import { checkNodes } from './check-nodes.ts'
import { checkRedisServers } from './check-redis.ts'
import { checkSentinels } from './check-sentinels.ts'
import { checkClocks, checkDisks, checkFleet, checkWorkers } from './check-surroundings.ts'
import { type Finding, fail, renderFindings, skipped } from './finding.ts'

export interface DoctorOptions {
  readonly settings: Settings
  readonly json: boolean
  readonly print: (text: string) => void
}

/** @returns the exit code: 0 when nothing fails, else 1 */
export async function runDoctor({ settings, json, print }: DoctorOptions): Promise<number> {
  const checks = await examine(settings)
  print(json ? JSON.stringify({ checks }, null, 2) : renderFindings(checks).join('\n'))
  return checks.some(({ outcome }) => outcome === 'fail') ? 1 : 0
}

/** All findings, in the order in which they are shown. */
export async function examine(settings: Settings): Promise<Finding[]> {
  const { nodeUrls: urls, apiKey, caFile } = settings
  const [views, redis, aws] = await Promise.all([
    askNodes({ urls, apiKey, caFile }),
    lookAtRedis(settings),
    lookAtAws(settings),
  ])
  const survey = redis.survey
  const servers = survey?.servers ?? []
  return [
    ...checkNodes(views),
    ...(survey === undefined ? [redis.finding] : [...checkRedisServers(survey), ...checkSentinels(survey)]),
    checkClocks(views, servers),
    checkDisks(await disksOf(views, settings)),
    checkWorkers(views),
    checkFleet(views),
    ...aws,
  ]
}

type Look = { readonly survey: RedisSurvey } | { readonly survey?: undefined; readonly finding: Finding }

async function lookAtRedis(settings: Settings): Promise<Look> {
  const target = targetOf(settings) ?? (await ownSocket(settings))
  if (target === undefined)
    return {
      finding: skipped(
        'redis-servers',
        'MUSTER_REDIS_URL is not set and no node runs on MUSTER_DATA_DIR here, so Redis is seen through the nodes only',
      ),
    }
  try {
    return { survey: await surveyRedis(target) }
  } catch (error) {
    if (!(error instanceof StartupError)) throw error
    return { finding: fail('redis-servers', error.message, 'Mend this setting on the machine where the doctor runs.') }
  }
}

/** The Redis of a node that runs here. */
async function ownSocket({ dataDir }: Settings): Promise<RedisTarget | undefined> {
  const { socket } = embeddedFiles(dataDir, tmpdir())
  const found = await stat(socket).catch(() => undefined)
  return found?.isSocket() ? { socketPath: socket } : undefined
}

async function disksOf(
  views: readonly NodeView[],
  { dataDir }: Settings,
): Promise<{ where: string; freeBytes: number; totalBytes: number }[]> {
  const told = views.flatMap(({ url, report }) => (report?.dataDir ? [{ where: url, ...report.dataDir }] : []))
  if (told.length > 0) return told
  const own = await statfs(dataDir).catch(() => undefined)
  return own === undefined
    ? []
    : [{ where: dataDir, freeBytes: own.bavail * own.bsize, totalBytes: own.blocks * own.bsize }]
}

async function lookAtAws(settings: Settings): Promise<Finding[]> {
  if (settings.fleet !== 'ec2') return [skipped('aws-credentials', 'only with MUSTER_FLEET=ec2')]
  // Only now: the SDK costs 0.3 s and 28 MB.
  const { examineAws } = await import('./check-aws.ts')
  return await examineAws(settings)
}
