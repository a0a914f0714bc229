import { copyFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { holdsAll, makeGroup, Writer } from '../../support/redis-group.ts'
import { until } from '../../support/until.ts'

t.test('when all hosts lose power at once', async t => {
  // Well below the 10 s for which the others leave the role to a primary that may have newer data.
  const group = await makeGroup(t, { downAfterMs: 2000 })
  for (const host of group.hosts) host.start()
  await group.untilWhole()

  await t.test('all hosts lose their processes at once: the same primary, the same data', async t => {
    const writer = new Writer(group)
    const primary = await group.untilWhole()
    await until(() => writer.acknowledged.length > 100)
    await Promise.all(group.hosts.map(host => host.killAll()))
    const acknowledged = await writer.stop()
    const [first, second] = group.others(primary)
    first?.start()
    second?.start()
    // The primary comes last, later than Sentinel takes to give it up: it alone is sure to have everything.
    await until(async () => {
      const { hosts } = await group.status()
      return hosts.filter(({ redis }) => redis === 'replica').length === 2
    })
    // pause: longer than Sentinel takes to give it up
    await delay(2 * group.config.downAfterMs)
    group.host(primary).start()
    t.equal(await group.untilWhole(), primary)
    await holdsAll(t, group, acknowledged, 'all killed')
  })

  await t.test('all start at once, the primary with an empty disk: it never serves that', async t => {
    const writer = new Writer(group)
    const primary = await group.untilWhole()
    await until(() => writer.acknowledged.length > 100)
    const acknowledged = await writer.stop()
    const [replica = ''] = group.others(primary).map(({ name }) => name)
    await Promise.all(group.hosts.map(host => host.killAll()))
    await rm(join(group.folder, primary, 'data', 'appendonlydir'), { recursive: true })
    // As a replica leaves behind; Redis does not load it.
    await copyFile(join(group.folder, replica, 'data', 'dump.rdb'), join(group.folder, primary, 'data', 'dump.rdb'))
    for (const host of group.hosts) host.start()
    await group.untilPrimaryIsNot(primary)
    t.notMatch(group.host(primary).log().split('starting the Redis').at(-1) ?? '', /starts as primary/)
    await holdsAll(t, group, acknowledged, 'empty disk')
    const kept = await group.keysOf(primary)
    t.strictSame(
      acknowledged.filter(key => !kept.has(key)),
      [],
      'and its disk is filled again',
    )
  })

  await t.test('a replica was away, then the primary is lost: the one that followed takes over', async t => {
    const primary = await group.untilWhole()
    const [behind, ahead] = group.others(primary)
    if (behind === undefined || ahead === undefined) throw new Error('three hosts were made')
    await behind.killAll()
    const writer = new Writer(group)
    await until(() => writer.acknowledged.length > 100)
    const acknowledged = await writer.stop()
    await group.host(primary).killAll()
    // pause: a Sentinel that starts after ten times --down-after-ms thinks that the one ahead has been away for too long.
    await delay(13 * group.config.downAfterMs)
    behind.start()
    t.equal(await group.untilPrimaryIsNot(primary), ahead.name)
    t.match(behind.log(), `${ahead.name} has followed the primary until its end`)
    group.host(primary).start()
    await holdsAll(t, group, acknowledged, 'a replica that was away')
  })
})
