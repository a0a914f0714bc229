/** A copy with an empty disk takes no part in a failover: the others would copy it, and lose all that they have. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { holdsAll, makeCopies, roleOf, Writer } from '../support/redis-copies.ts'
import { until } from '../support/until.ts'

t.test('a replica that lost its disk is not promoted while the primary is away', async t => {
  const copies = await makeCopies(t)
  for (const host of copies.hosts) host.start()
  const primary = await copies.untilWhole()
  const writer = new Writer(copies)
  await until(() => writer.acknowledged.length > 100)
  const acknowledged = await writer.stop()
  const [empty, full] = copies.others(primary)
  if (empty === undefined || full === undefined) throw new Error('three hosts were made')

  await Promise.all(copies.hosts.map(host => host.killAll()))
  await rm(join(empty.folder, 'data', 'appendonlydir'), { recursive: true })
  await rm(join(empty.folder, 'data', 'dump.rdb'), { force: true })
  // The primary stays away, and the Sentinels of the other two are enough to put another one in its place.
  empty.start()
  full.start()
  t.equal(await copies.untilPrimaryIsNot(primary), full.name, 'the one that has the data')
  await until(async () => roleOf(await copies.status(), empty.name) === 'replica')
  copies.host(primary).start()
  await holdsAll(t, copies, acknowledged, 'a replica with an empty disk')
  const kept = await copies.keysOf(empty.name)
  t.strictSame(
    acknowledged.filter(key => !kept.has(key)),
    [],
    'and that disk is filled again',
  )
})

t.test('nothing was ever written, and the primary comes back with an empty disk: it serves', async t => {
  const copies = await makeCopies(t)
  for (const host of copies.hosts) host.start()
  const primary = await copies.untilWhole()
  await Promise.all(copies.hosts.map(host => host.killAll()))
  await rm(join(copies.folder, primary, 'data'), { recursive: true })
  for (const host of copies.hosts) host.start()
  t.equal(await copies.untilWhole(), primary)
  const writer = new Writer(copies)
  await until(() => writer.acknowledged.length > 100)
  await holdsAll(t, copies, await writer.stop(), 'a first primary with an empty disk')
})
