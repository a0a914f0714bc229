/** A worker with real slots against a node made of memory; both are gone when the test is over. */
import { fileURLToPath } from 'node:url'
import { type Logger, pino } from 'pino'
import type { Test } from 'tap'
import { readSettings, type Settings } from '../../src/settings/settings.ts'
import { Worker } from '../../src/worker/agent/agent.ts'
import { FakeNode } from './fake-node.ts'
import { isAlive } from './is-alive.ts'
import { until } from './until.ts'

export const badHandlers = fileURLToPath(new URL('./worker-handlers.mjs', import.meta.url))

export const settingsFor = (node: FakeNode, more: Record<string, string> = {}): Settings =>
  readSettings({
    MUSTER_NODE_URLS: node.url,
    MUSTER_HANDLERS: badHandlers,
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_WORKER_SLOTS: '2',
    ...more,
  })

export async function startWorker(
  test: Test,
  more: Record<string, string> = {},
  log: Logger = pino({ level: 'silent' }),
): Promise<{ node: FakeNode; worker: Worker }> {
  const node = new FakeNode()
  await node.open()
  const worker = new Worker({ settings: settingsFor(node, more), queue: 'default', instanceId: 'i-1', log })
  test.teardown(async () => {
    const pids = worker.slotPids
    await worker.stopNow()
    await node.close()
    await until(() => !pids.some(isAlive))
  })
  await worker.start()
  return { node, worker }
}

/** A logger that keeps its lines. */
export function keptLog(): { log: Logger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = []
  return { log: pino({ level: 'debug' }, { write: line => lines.push(JSON.parse(line)) }), lines }
}
