/** A handler that stops its worker by a signal: the worker goes on at once, or is replaced. Linux alone shows the state. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isStopped } from '../../src/process-identity.ts'
import { isAlive } from '../support/is-alive.ts'
import { startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

if (process.platform !== 'linux') {
  t.pass('needs /proc')
  process.exit()
}

/** A lease that nobody gives up within the test: without help, nothing would go on. */
const longLeaseMs = '600000'

const start = async (t: Test) => {
  const folder = t.testdir({
    'handlers.mjs': `import { defineHandler } from 'muster'
import { setTimeout as delay } from 'node:timers/promises'
const pids = () => ({ agent: process.ppid, slot: process.pid })
export const who = defineHandler({ type: 'who', handle: pids })
export const stop = defineHandler({ type: 'stop', handle: () => { process.kill(process.ppid, 'SIGSTOP'); return pids() } })
export const stopAll = defineHandler({ type: 'stopAll', handle: async () => {
  process.kill(process.ppid, 'SIGSTOP')
  process.kill(process.pid, 'SIGSTOP')
  await delay(60_000) // pause: of the handler
} })`,
  })
  const node = await startNodeProcess(
    t,
    {
      MUSTER_LEASE_MS: longLeaseMs,
      MUSTER_MIN_WORKERS: '1',
      MUSTER_MAX_WORKERS: '1',
      MUSTER_WORKER_SLOTS: '1',
      MUSTER_AUTOSCALE_INTERVAL_MS: '100',
    },
    ['--handlers', join(folder, 'handlers.mjs')],
  )
  const put = async (type: string, query = ''): Promise<string> => {
    const reply = await fetch(`${node.url}/enqueue?type=${type}${query}`, { method: 'PUT' })
    return ((await reply.json()) as { 'Work ID': string })['Work ID']
  }
  const resultOf = async (id: string): Promise<{ agent: number; slot: number }> => {
    let value: { agent: number; slot: number } | undefined
    await until(async () => {
      const reply = await fetch(`${node.url}/jobs/${id}/result`)
      value = reply.status === 200 ? ((await reply.json()) as { value: typeof value }).value : undefined
      return value !== undefined
    })
    return value as unknown as { agent: number; slot: number }
  }
  return { node, put, resultOf }
}

t.test('its job and the next one end in the same worker', async t => {
  const { put, resultOf } = await start(t)
  const stopped = await resultOf(await put('stop'))
  const next = await resultOf(await put('who'))
  t.equal(next.agent, stopped.agent, 'the worker went on')
})

t.test('with its slot, too: the node makes it go on, and the run-time limit ends the job', async t => {
  const { node, put, resultOf } = await start(t)
  const { agent } = await resultOf(await put('who'))
  const id = await put('stopAll', '&attempts=1&timeoutMs=3000')
  await until(async () => {
    const { state, error } = (await (await fetch(`${node.url}/jobs/${id}`)).json()) as {
      state: string
      error?: { code: string }
    }
    return state === 'dead' && error?.code === 'timeout'
  })
  t.equal((await resultOf(await put('who'))).agent, agent)
  t.match(node.output(), /a worker was stopped by a signal, a handler may have sent it/)

  // As by somebody who does not give up.
  const { slot } = await resultOf(await put('who'))
  process.kill(slot, 'SIGSTOP')
  const stopIt = setInterval(() => isAlive(agent) && process.kill(agent, 'SIGSTOP'), 50)
  t.teardown(() => clearInterval(stopIt))
  await until(() => !isAlive(agent) && !isAlive(slot))
  clearInterval(stopIt)
  t.not((await resultOf(await put('who'))).agent, agent, 'it was replaced')
})

t.test('a stopped slot ends with its worker', async t => {
  const { put, resultOf } = await start(t)
  const { agent, slot } = await resultOf(await put('who'))
  process.kill(slot, 'SIGSTOP')
  await until(() => isStopped(slot))
  process.kill(agent, 'SIGKILL')
  await until(() => !isAlive(slot))
  t.not((await resultOf(await put('who'))).agent, agent)
})

t.test('what is stopped, and what is not', async t => {
  t.notOk(isStopped(process.pid))
  t.notOk(isStopped(2 ** 30))
  t.match(readFileSync('/proc/self/stat', 'latin1'), /^\d+ \(/)
})
