/** The memory of slots has a limit, and they go before all else when the machine has none left. Linux alone tells. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { keptLog, startWorker } from '../support/agent.ts'
import { until } from '../support/until.ts'

const skip = process.platform === 'linux' ? false : 'needs /proc'

t.test('a slot beyond its memory is ended, and the error says by how much', { skip }, async t => {
  const { log, lines } = keptLog()
  const { node } = await startWorker(t, { MUSTER_SLOT_MEMORY_MB: '250', MUSTER_WORKER_SLOTS: '2' }, log)
  for (const inChild of [false, true]) {
    const [id] = node.add({ type: 'buffers', payload: { json: { mb: 400, inChild } } }) as [string]
    const { error } = await node.result(id)
    t.equal(error?.code, 'out_of_memory')
    const [, used] = /used (\d+) MiB of memory.*limit 250 MiB/.exec(error?.message ?? '') ?? []
    t.ok(Number(used) > 250, String(error?.message))
    if (inChild) t.match(error?.message, /in \d processes/)
    else t.notMatch(error?.message, /processes/)
    t.not(error?.retryable, false, 'it is tried again')
  }
  t.ok(lines.some(({ msg, reason }) => msg === 'a slot ended' && /250 MiB/.test(String(reason))))
  const [after] = node.add({ type: 'echo', payload: { json: 1 } }) as [string]
  t.same((await node.result(after)).value, { json: 1 })
})

t.test('a job whose slots end while its payload is brought into them fails in the end', async t => {
  const { node, worker } = await startWorker(t)
  let calls = 0
  node.sendsRest = async () => {
    calls += 1
    const pids = worker.slotPids
    for (const pid of pids) process.kill(pid, 'SIGKILL')
    await until(() => !worker.slotPids.some(pid => pids.includes(pid)))
  }
  const id = node.addWithBlob('echo', Buffer.alloc(1_000_000), 'bytes')
  t.match((await node.result(id)).error, { code: 'crash', message: /while its payload or checkpoint is brought/ })
  t.equal(calls, 3)
})

t.test('slots go first when the kernel needs memory', { skip }, async t => {
  const { node, worker } = await startWorker(t)
  const [id] = node.add({ type: 'oomScore' }) as [string]
  const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'))
  t.same((await node.result(id)).value, { json: Math.max(own, 500) })
  for (const pid of worker.slotPids) t.ok(Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8')) >= 500)
})
