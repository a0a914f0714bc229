import { copyFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { holdsAll, makeCopies, Writer } from '../support/redis-copies.ts'
import { until } from '../support/until.ts'

t.test('when all hosts lose power at once', async t => {
  // Well below the 10 s for which the others leave the role to a primary that may have newer data.
  const copies = await makeCopies(t, { downAfterMs: 2000 })
  for (const host of copies.hosts) host.start()
  await copies.untilWhole()

  await t.test('all hosts lose their processes at once: the same primary, the same data', async t => {
    const writer = new Writer(copies)
    const primary = await copies.untilWhole()
    await until(() => writer.acknowledged.length > 100)
    await Promise.all(copies.hosts.map(host => host.killAll()))
    const acknowledged = await writer.stop()
    const [first, second] = copies.others(primary)
    first?.start()
    second?.start()
    // The primary comes last, later than Sentinel takes to give it up: it alone is sure to have everything.
    await until(async () => {
      const { hosts } = await copies.status()
      return hosts.filter(({ redis }) => redis === 'replica').length === 2
    })
    // pause: longer than Sentinel takes to give it up
    await delay(2 * copies.copies.downAfterMs)
    copies.host(primary).start()
    t.equal(await copies.untilWhole(), primary)
    await holdsAll(t, copies, acknowledged, 'all killed')
  })

  await t.test('all start at once, the primary with an empty disk: it never serves that', async t => {
    const writer = new Writer(copies)
    const primary = await copies.untilWhole()
    await until(() => writer.acknowledged.length > 100)
    const acknowledged = await writer.stop()
    const [replica = ''] = copies.others(primary).map(({ name }) => name)
    await Promise.all(copies.hosts.map(host => host.killAll()))
    await rm(join(copies.folder, primary, 'data', 'appendonlydir'), { recursive: true })
    // As a replica leaves behind; Redis does not load it.
    await copyFile(join(copies.folder, replica, 'data', 'dump.rdb'), join(copies.folder, primary, 'data', 'dump.rdb'))
    for (const host of copies.hosts) host.start()
    await copies.untilPrimaryIsNot(primary)
    t.notMatch(copies.host(primary).log().split('starting the Redis').at(-1) ?? '', /starts as primary/)
    await holdsAll(t, copies, acknowledged, 'empty disk')
    const kept = await copies.keysOf(primary)
    t.strictSame(
      acknowledged.filter(key => !kept.has(key)),
      [],
      'and its disk is filled again',
    )
  })

  await t.test('a replica was away, then the primary is lost: the one that followed takes over', async t => {
    const primary = await copies.untilWhole()
    const [behind, ahead] = copies.others(primary)
    if (behind === undefined || ahead === undefined) throw new Error('three hosts were made')
    await behind.killAll()
    const writer = new Writer(copies)
    await until(() => writer.acknowledged.length > 100)
    const acknowledged = await writer.stop()
    await copies.host(primary).killAll()
    // pause: a Sentinel that starts after ten times --down-after-ms thinks that the one ahead has been away for too long.
    await delay(13 * copies.copies.downAfterMs)
    behind.start()
    t.equal(await copies.untilPrimaryIsNot(primary), ahead.name)
    t.match(behind.log(), `${ahead.name} has followed the primary until its end`)
    copies.host(primary).start()
    await holdsAll(t, copies, acknowledged, 'a replica that was away')
  })
})
