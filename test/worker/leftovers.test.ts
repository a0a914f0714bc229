/** What one job leaves behind does not hit the next one in its slot. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { keptLog, startWorker } from '../support/agent.ts'
import { isAlive } from '../support/is-alive.ts'
import { until } from '../support/until.ts'

t.test('leftovers of a job', async t => {
  const { log, lines } = keptLog()
  const { node, worker } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' }, log)
  const folder = t.testdir({})
  const leave = async (what: string): Promise<string> => {
    const file = join(folder, what)
    const [id] = node.add({ type: 'leaveBehind', payload: { json: { what, file } } }) as [string]
    t.equal((await node.result(id)).error, undefined)
    return file
  }
  const next = async () => await node.result(node.add({ type: 'surroundings' })[0] as string)

  for (const what of ['rejection', 'exception'])
    await t.test(`a late ${what} spends no attempt of the next one, which runs in a new slot`, async t => {
      const [pid] = worker.slotPids
      await leave(what)
      t.equal((await next()).error, undefined)
      t.not(worker.slotPids[0], pid)
      t.ok(lines.some(({ msg, reason }) => msg === 'a slot ended' && /left over/.test(String(reason))))
    })

  for (const [name, bytes] of [
    ['small', 1000],
    ['large', 300_000],
  ] as const)
    for (const lease of ['no checkpoint', 'a checkpoint over the inline limit'])
      await t.test(`the next one goes on from its own newest checkpoint: ${name}, ${lease} in its lease`, async t => {
        const sign = join(folder, `${name} ${lease.length}`)
        const left = node.add({ type: 'leaveBehind', payload: { json: { what: 'rejection at a sign', file: sign } } })
        t.equal((await node.result(left[0] as string)).error, undefined)
        const payload = { json: { bytes, sign } }
        const workId =
          lease === 'no checkpoint'
            ? (node.add({ type: 'goesOn', payload })[0] as string)
            : node.addWithCheckpointBlob('goesOn', Buffer.alloc(bytes, 'lease'), payload)
        t.match((await node.result(workId)).value, { json: { found: 'newer', size: bytes } })
        t.equal(node.logs.get(workId), undefined, 'nothing was left out')
      })

  for (const lease of [undefined, 'lease'])
    await t.test(`a newest checkpoint that is lost leaves ${lease ?? 'nothing'}, and a line in the log`, async t => {
      node.losesCheckpoints = true
      t.teardown(() => {
        node.losesCheckpoints = false
      })
      const sign = join(folder, `lost ${lease}`)
      node.add({ type: 'leaveBehind', payload: { json: { what: 'rejection at a sign', file: sign } } })
      const checkpoint = lease && { checkpoint: { base64: Buffer.from(lease).toString('base64') } }
      const [workId = ''] = node.add({ type: 'goesOn', payload: { json: { bytes: 1000, sign } }, ...checkpoint })
      t.match((await node.result(workId)).value, { json: { found: lease ?? 'nothing' } })
      const from = lease === undefined ? 'the beginning' : 'the one before'
      const log = [...(node.logs.get(workId) ?? [])].join('\n')
      // One that waited for its slot for over a second went back, and has a lease that names no other checkpoint.
      if (!node.returned.includes(workId)) t.match(log, `Starting from ${from}: the checkpoint cannot be read`)
    })

  await t.test('a late print is not in the log of the next one', async t => {
    const file = await leave('print')
    const { workId } = await next()
    t.ok(existsSync(file), 'it was printed meanwhile')
    t.equal(node.logs.get(workId), undefined)
  })

  await t.test('changes of folder and environment are undone', async t => {
    await leave('environment')
    t.match((await next()).value, { json: { folder: process.cwd(), leftOver: null, path: true } })
  })

  for (const what of ['child', 'detached'])
    await t.test(`a process ends with its job: ${what}`, async () => {
      const pid = Number(readFileSync(await leave(what), 'utf8'))
      await until(() => !isAlive(pid))
    })

  await t.test('one in a session of its own ends with the slot', async t => {
    const file = await leave('escaped')
    await until(() => existsSync(file) && readFileSync(file, 'utf8').endsWith('\n'))
    const pid = Number(readFileSync(file, 'utf8'))
    t.ok(isAlive(pid))
    process.kill(worker.slotPids[0] as number, 'SIGKILL')
    await until(() => !isAlive(pid))
  })
})

t.test('one that was claimed over a lease ago goes back, since its run-time limit counts from the claim', async t => {
  const { node } = await startWorker(t)
  const folder = t.testdir({})
  const left = join(folder, 'sign')
  const json = { what: 'rejection at a sign', file: left }
  t.equal((await node.result(node.add({ type: 'leaveBehind', payload: { json } })[0] as string)).error, undefined)
  const started = join(folder, 'started')
  const [id] = node.add({ type: 'runsUntil', payload: { json: started } }) as [string]
  await until(() => existsSync(started))
  const sinceMs = performance.now()
  await until(() => performance.now() - sinceMs > node.leaseMs)
  writeFileSync(left, '')
  await node.when(() => node.returned.length > 0, 'it goes back, although the other slot is idle')
  writeFileSync(`${started} may end`, '')
  t.equal((await node.result(id)).error, undefined, 'no attempt is spent')
  t.same(node.returned, [id])
})

t.test('the log says who ended a slot', async t => {
  const { log, lines } = keptLog()
  const { node } = await startWorker(t, {}, log)
  const [late, cancelled] = node.add({ type: 'loop', timeoutMs: 200 }, { type: 'loop' }) as [string, string]
  await node.when(() => node.leasedIds.length === 2, 'both leased')
  node.cancel(cancelled)
  await node.result(late)
  const reasons = (): string =>
    lines
      .filter(({ msg }) => msg === 'a slot ended')
      .map(({ reason }) => reason)
      .join('\n')
  await until(() => /run-time limit of 200 ms/.test(reasons()) && /was cancelled/.test(reasons()))
  t.notMatch(JSON.stringify(lines), /"token"/, 'no token is in the log')
})
