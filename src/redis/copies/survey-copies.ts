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
  const heard = async <T>(who: string, answer: Promise<T>): Promise<T[]> => {
    try {
      return [await answer]
    } catch (error) {
      silent.push(`${who}: ${(error as Error).message}`)
      return []
    }
  }
  const [sentinels, copies] = await Promise.all([
    Promise.all(
      copy.hosts.map(async host => {
        const target = targets.sentinel(host)
        const answers = await heard(`Sentinel of ${host.name}`, askSentinelInfo(target, copy.name, answerMs))
        return answers.map(({ primary, configEpoch, isFailingOver }) => ({
          ...{ host: host.name, primary, configEpoch, isFailingOver },
        }))
      }),
    ),
    Promise.all(
      sidesOf(copy).others.map(async host => {
        const answers = await heard(`Redis of ${host.name}`, askRedisInfo(targets.redis(host), answerMs))
        return answers.map(({ role, keyCount, isLoading, offset }) => ({
          ...{ host: host.name, role, hasData: isLoading || keyCount > 0, offset: role === 'replica' ? offset : 0 },
        }))
      }),
    ),
  ])
  return { sentinels: sentinels.flat(), copies: copies.flat(), silent }
}
