/** Local workers while the disk under the data directory takes nothing, or has vanished. */
import { readdirSync, rmSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createLocalProvider, type LocalProviderOptions } from '../../src/fleet/providers/local/local-provider.ts'
import { processIdentity } from '../../src/process-identity.ts'
import { processesOf } from '../support/node-process.ts'
import { mountSmallDisk } from '../support/small-disk.ts'
import { until } from '../support/until.ts'

const log = pino({ level: 'silent' })
const request = (decisionId: string, count = 1) => ({ pool: 'default', count, decisionId, slots: 1 })
const gone = (pid: number): boolean => processIdentity(pid) === undefined

/** Workers that say nothing and stay; they are found by the mark in their environment. */
async function openProvider(t: Test, dataDir: string, more: Partial<LocalProviderOptions> = {}) {
  const scripts = await mkdtemp(join(tmpdir(), 'muster-full-'))
  const script = join(scripts, 'stay.mjs')
  await writeFile(script, `process.on('SIGTERM', () => process.exit(0))\nsetInterval(() => {}, 1000)\n`)
  const provider = createLocalProvider({
    dataDir,
    workerCommand: [process.execPath, script],
    environment: { PATH: process.env.PATH, MARK_OF_TEST: scripts },
    terminateGraceMs: 60_000,
    closeGraceMs: 10_000,
    log,
    ...more,
  })
  t.teardown(async () => {
    await provider.close({ stopInstances: true })
    await rm(scripts, { recursive: true, force: true })
  })
  const pidOf = async (id: string): Promise<number> => {
    const { pid } = JSON.parse(await readFile(join(dataDir, 'instances', `${id}.json`), 'utf8')) as { pid: number }
    return pid
  }
  return { provider, pidOf, running: () => processesOf(scripts) }
}

t.test('a full disk: launches fail, nothing leaks, ends are noticed, and room heals it', async t => {
  const disk = await mountSmallDisk(t, '2m')
  if (disk === undefined) return
  const { provider, pidOf, running } = await openProvider(t, disk.folder)
  const [first, second] = await provider.launch(request('d1', 2))
  const [firstPid, secondPid] = [await pidOf(first?.id ?? ''), await pidOf(second?.id ?? '')]
  await disk.fill()
  const files = readdirSync(join(disk.folder, 'instances')).length

  for (const decision of ['d2', 'd3', 'd4'])
    await t.rejects(provider.launch(request(decision, 2)), { name: 'LaunchError', message: /ENOSPC/ })
  t.equal((await running()).length, 2, 'what cannot be recorded does not run')
  t.equal(readdirSync(join(disk.folder, 'instances')).length, files, 'and leaves no file')

  let isTold = false
  provider.onChange(() => {
    isTold = true
  })
  process.kill(firstPid, 'SIGKILL')
  await until(() => isTold)
  t.same(
    (await provider.list()).map(({ id }) => id),
    [second?.id],
    'the end of a worker is noticed although it cannot be written down',
  )
  await provider.terminate([second?.id ?? ''])
  await until(() => gone(secondPid))
  await until(async () => (await provider.list()).length === 0)

  await disk.free()
  t.equal((await provider.launch(request('d5'))).length, 1)
  t.equal((await running()).length, 1)
})

t.test('a data directory that vanishes: ends are noticed, and the next launch makes it anew', async t => {
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-gone-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  const { provider, pidOf, running } = await openProvider(t, dataDir)
  const [first] = await provider.launch(request('d1'))
  const pid = await pidOf(first?.id ?? '')
  await rm(dataDir, { recursive: true })
  let isTold = false
  provider.onChange(() => {
    isTold = true
  })
  process.kill(pid, 'SIGKILL')
  await until(() => isTold)
  t.same(await provider.list(), [])
  const [next] = await provider.launch(request('d2'))
  t.ok(await pidOf(next?.id ?? ''))
  t.equal((await running()).length, 1)
})

t.test('a record that fails after the process was started ends the process', async t => {
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-gone-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  // Asked for between the two writes of a record.
  const tokenFor = (): string => {
    rmSync(join(dataDir, 'instances'), { recursive: true })
    return 'a token'
  }
  const { provider, running } = await openProvider(t, dataDir, { tokenFor })
  await t.rejects(provider.launch(request('d1')), { name: 'LaunchError', message: /ENOENT/ })
  await until(async () => (await running()).length === 0)
  t.same(await provider.list(), [])
})
