/** A node whose fleet gets other settings while it runs: it is not restarted, and the next decision goes by them. */
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

t.test('more workers are allowed in the file, and come', async t => {
  const file = join(t.testdir(), 'fleet.env')
  await writeFile(file, 'MUSTER_MAX_WORKERS=1\n')
  const node = await startNodeProcess(t, {
    MUSTER_FLEET_SETTINGS_FILE: file,
    MUSTER_WORKER_SLOTS: '1',
    MUSTER_AUTOSCALE_INTERVAL_MS: '200',
    MUSTER_TARGET_WAIT_MS: '1000',
  })
  // biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
  const pool = async (): Promise<any> => ((await (await fetch(`${node.url}/fleet`)).json()) as any).pools[0]
  const sleep = JSON.stringify({ payload: { ms: 600_000 } })
  for (let sent = 0; sent < 6; sent += 1)
    await fetch(`${node.url}/enqueue?type=sleep`, {
      ...{ method: 'PUT', headers: { 'content-type': 'application/json' }, body: sleep },
    })
  await until(async () => (await pool()).reason === 'ceiling')
  t.match(await pool(), { max: 1, desired: 1 })
  const { pid } = node

  await writeFile(`${file}.new`, 'MUSTER_MAX_WORKERS=3\n')
  await rename(`${file}.new`, file)
  await until(async () => (await pool()).workers.length === 3)
  t.match(await pool(), { max: 3, desired: 3 })
  t.match(node.output(), /maxWorkers of the queue default: 1 -> 3/)
  t.equal(node.pid, pid, 'not restarted')
})
