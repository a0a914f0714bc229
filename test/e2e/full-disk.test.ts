/** Whole nodes whose log or data lie on a disk that is full. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, closeSync, openSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { freePort } from '../support/free-port.ts'
import { cli, startNodeProcess } from '../support/node-process.ts'
import { mountSmallDisk } from '../support/small-disk.ts'
import { until } from '../support/until.ts'

t.test('a log on a full disk stops neither the node nor its workers', async t => {
  const disk = await mountSmallDisk(t, '2m')
  if (disk === undefined) return
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-log-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const logFile = join(disk.folder, 'node.log')
  const output = openSync(logFile, 'a')
  const env = {
    PATH: process.env.PATH,
    MUSTER_PORT: String(port),
    MUSTER_DATA_DIR: dataDir,
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_MIN_WORKERS: '1',
    MUSTER_LOG_LEVEL: 'debug',
  }
  const node = spawn(process.execPath, [cli, 'node'], { env, stdio: ['ignore', output, 'pipe'] })
  closeSync(output)
  let complaint = ''
  node.stderr?.on('data', (chunk: Buffer) => {
    complaint += chunk
  })
  let hasEnded = false
  const end = once(node, 'exit').then(() => {
    hasEnded = true
  })
  t.teardown(async () => {
    node.kill('SIGTERM')
    await end
    await rm(dataDir, { recursive: true, force: true })
  })
  const workers = async (): Promise<{ pid: number }[]> => {
    const reply = await fetch(`${url}/fleet`).catch(() => undefined)
    if (reply?.ok !== true) return []
    const { pools } = (await reply.json()) as { pools: { workers: { pid: number }[] }[] }
    return pools.flatMap(pool => pool.workers)
  }
  await until(async () => hasEnded || (await workers()).length === 1)
  await disk.fill()
  // The rest of its last block as well.
  t.throws(() => appendFileSync(logFile, 'x'.repeat(10_000)), { code: 'ENOSPC' })
  /** The pid of a worker that is not this one; waits for it. */
  const pidOfOther = async (known?: number): Promise<number | undefined> => {
    let found: number | undefined
    await until(async () => {
      found = (await workers()).find(({ pid }) => pid !== known)?.pid
      return hasEnded || found !== undefined
    })
    return found
  }
  const killWorker = (pid: number | undefined): void => {
    // 0 would be this test itself.
    if (pid === undefined) throw new Error(`the node ended: ${complaint}`)
    process.kill(pid, 'SIGKILL')
  }
  const before = await pidOfOther()
  killWorker(before)
  const next = await pidOfOther(before)
  t.equal(hasEnded, false, complaint)
  await disk.free()
  killWorker(next)
  await until(async () => (await readFile(logFile, 'utf8')).includes('ended by itself'))
  t.match(await readFile(logFile, 'utf8'), 'ended by itself', 'with room, the log goes on')
})

t.test(
  'a node and its Redis on a full disk: it says so, cancels by its reserve, and heals when there is room',
  async t => {
    const disk = await mountSmallDisk(t, '100m')
    if (disk === undefined) return
    const node = await startNodeProcess(t, { MUSTER_DATA_DIR: disk.folder, MUSTER_FLEET: 'none' })
    const call = async (method: string, path: string, body?: string) => {
      const headers = { 'content-type': 'application/octet-stream' }
      const reply = await fetch(node.url + path, { method, ...(body !== undefined && { body, headers }) })
      return { status: reply.status, body: (await reply.json()) as Record<string, unknown> }
    }
    const put = () => call('PUT', '/enqueue?iterations=1', 'x')
    const workIds: string[] = []
    for (let n = 0; n < 5; n += 1) workIds.push(String((await put()).body['Work ID']))
    const saysWhy = async (): Promise<boolean> =>
      /^Disk/.test(String((await call('GET', '/health/checks')).body.overloaded))
    await until(async () => (await readdir(disk.folder)).includes('reserve'))
    await disk.fill()
    await until(saysWhy)
    t.match(await put(), { status: 503, body: { code: 'overloaded', detail: /^Disk/ } })
    await until(async () => !(await readdir(disk.folder)).includes('reserve'))
    await until(async () => (await call('DELETE', `/jobs/${workIds[0]}`)).status === 200)

    await disk.fill()
    // Whatever Redis has to write now ends it, again and again.
    await until(async () => {
      await call('DELETE', `/jobs/${workIds[1]}`)
      return node.output().includes('Redis ended by itself')
    })
    t.match(node.output(), /started again: the disk under .* is full/)
    await until(async () => {
      const { status, body } = await call('GET', '/status')
      return status === 503 && /^The disk under .* is full/.test(String(body.detail))
    })

    await disk.free()
    await until(async () => (await put()).status === 200)
    t.match(await call('GET', `/jobs/${workIds[4]}`), { status: 200, body: { state: 'waiting' } }, 'nothing was lost')
  },
)
