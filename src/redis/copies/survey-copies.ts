/** Asks everyone who could know as what this host's Redis may start. */

import { type Copy, sidesOf } from './copies.ts'
import { askRedisInfo, askSentinelInfo } from './copy-info.ts'
import type { RedisAnswer, SentinelAnswer } from './start-rule.ts'
import type { Targets } from './targets.ts'

/** For each answer, and all are asked at once. */
const answerMs = 500

export interface Survey {
  readonly sentinels: readonly SentinelAnswer[]
  /** Of the other hosts. */
  readonly copies: readonly RedisAnswer[]
  /** Who did not answer, and why. */
  readonly silent: readonly string[]
}

/** Takes 500 ms at most; never throws. */
export async function surveyCopies(copy: Copy, targets: Targets): Promise<Survey> {
  const silent: string[] = []
  const [sentinels, copies] = await Promise.all([
    Promise.all(
      copy.hosts.map(async host => {
        const asked = askSentinelInfo(targets.sentinel(host), copy.name, answerMs)
        const answers = await heard(`Sentinel of ${host.name}`, asked, silent)
        return answers.map(({ primary, configEpoch, isFailingOver }) => ({
          ...{ host: host.name, primary, configEpoch, isFailingOver },
        }))
      }),
    ),
    askOthers(copy, targets, silent),
  ])
  return { sentinels: sentinels.flat(), copies, silent }
}

/** Asks the Redis of each other host. Takes 500 ms at most; never throws. */
export async function askOthers(copy: Copy, targets: Targets, silent: string[] = []): Promise<RedisAnswer[]> {
  const answers = sidesOf(copy).others.map(async host => {
    const infos = await heard(`Redis of ${host.name}`, askRedisInfo(targets.redis(host), answerMs), silent)
    return infos.map(({ role, keyCount, isLoading, offset }) => ({
      ...{ host: host.name, role, hasData: isLoading || keyCount > 0, offset: role === 'replica' ? offset : 0 },
    }))
  })
  return (await Promise.all(answers)).flat()
}

async function heard<T>(who: string, answer: Promise<T>, silent: string[]): Promise<T[]> {
  try {
    return [await answer]
  } catch (error) {
    silent.push(`${who}: ${(error as Error).message}`)
    return []
  }
}
