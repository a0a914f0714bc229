/** A server with an empty disk takes no part in a failover: the others would copy it, and lose all that they have. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { holdsAll, makeGroup, roleOf, Writer } from '../../support/redis-group.ts'
import { until } from '../../support/until.ts'

t.test('a replica that lost its disk is not promoted while the primary is away', async t => {
  const group = await makeGroup(t)
  for (const host of group.hosts) host.start()
  const primary = await group.untilWhole()
  const writer = new Writer(group)
  await until(() => writer.acknowledged.length > 100)
  const acknowledged = await writer.stop()
  const [empty, full] = group.others(primary)
  if (empty === undefined || full === undefined) throw new Error('three hosts were made')

  await Promise.all(group.hosts.map(host => host.killAll()))
  await rm(join(empty.folder, 'data', 'appendonlydir'), { recursive: true })
  await rm(join(empty.folder, 'data', 'dump.rdb'), { force: true })
  // The primary stays away, and the Sentinels of the other two are enough to put another one in its place.
  empty.start()
  full.start()
  t.equal(await group.untilPrimaryIsNot(primary), full.name, 'the one that has the data')
  await until(async () => roleOf(await group.status(), empty.name) === 'replica')
  group.host(primary).start()
  await holdsAll(t, group, acknowledged, 'a replica with an empty disk')
  const kept = await group.keysOf(empty.name)
  t.strictSame(
    acknowledged.filter(key => !kept.has(key)),
    [],
    'and that disk is filled again',
  )
})

t.test('nothing was ever written, and the primary comes back with an empty disk: it serves', async t => {
  const group = await makeGroup(t)
  for (const host of group.hosts) host.start()
  const primary = await group.untilWhole()
  await Promise.all(group.hosts.map(host => host.killAll()))
  await rm(join(group.folder, primary, 'data'), { recursive: true })
  for (const host of group.hosts) host.start()
  t.equal(await group.untilWhole(), primary)
  const writer = new Writer(group)
  await until(() => writer.acknowledged.length > 100)
  await holdsAll(t, group, await writer.stop(), 'a first primary with an empty disk')
})
