import t from 'tap'
import { closeRedis, connectRedis } from '../../../src/redis/connect/connection.ts'
import { openWrites } from '../../../src/redis/writes/replicated-writes.ts'
import { startSentinelTrio } from '../../support/redis-sentinel.ts'
import { until } from '../../support/until.ts'

const log = { info: () => undefined, warn: () => undefined }

t.test('all clients of a node share one listener and one questioner of each Sentinel', async t => {
  const trio = await startSentinelTrio(t)
  /** Connections to one Sentinel that are neither of another Sentinel nor the one that asks. */
  const connectionsTo = async (index: number): Promise<number> =>
    String(await trio.askSentinel(index, 'CLIENT', 'LIST'))
      .split('\n')
      .filter(line => line !== '' && !/ name=sentinel-| cmd=client/.test(line)).length
  const counts = (): Promise<number[]> => Promise.all([0, 1, 2].map(connectionsTo))
  const untilEach = async (expected: number): Promise<void> => {
    let last: number[] = []
    await until(async () => {
      last = await counts()
      return last.every(count => count === expected)
    }).catch(() => undefined)
    t.same(last, [expected, expected, expected])
  }

  await untilEach(0)
  const commands = await connectRedis({ ...trio.target, purpose: 'commands', log })
  const subscribers = await Promise.all(
    [1, 2, 3].map(() => connectRedis({ ...trio.target, purpose: 'subscriber', log })),
  )
  await untilEach(1)
  const { writes, close } = await openWrites('replicated', trio.target, commands, log)
  await writes.confirm('{muster}:first', () => commands.set('{muster}:first', 'write'))
  await untilEach(2)

  const before = await trio.primary()
  const primary = await trio.failover()
  t.not(primary, before)
  await until(() =>
    commands.set('{muster}:after', 'switch').then(
      () => true,
      () => false,
    ),
  )
  await untilEach(2)

  await close()
  await closeRedis(commands)
  await untilEach(2)
  t.equal(subscribers[0]?.status, 'ready', 'the others keep theirs')
  await Promise.all(subscribers.map(closeRedis))
  await untilEach(0)
})
