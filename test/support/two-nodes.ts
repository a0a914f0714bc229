/** Two nodes on one Redis as processes, workers that know both, and the calls that their tests share. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Test } from 'tap'
import { cli, type NodeProcess, startNodeProcess } from './node-process.ts'
import type { TestRedis } from './redis.ts'
import { until } from './until.ts'

// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
export type Body = any

/** The first one holds the lease of the fleet, since it is there first. */
export async function startNodes(
  t: Test,
  redis: TestRedis,
  more: Record<string, string> = {},
): Promise<[NodeProcess, NodeProcess]> {
  const start = async (): Promise<NodeProcess> =>
    await startNodeProcess(t, {
      MUSTER_REDIS_URL: redis.url as string,
      MUSTER_FLEET: 'none',
      MUSTER_LEASE_MS: '6000',
      MUSTER_AUTOSCALE_INTERVAL_MS: '500',
      ...more,
    })
  return [await start(), await start()]
}

export interface TestWorker {
  readonly output: () => string
  readonly pid: number
}

export async function startWorker(t: Test, nodes: readonly NodeProcess[]): Promise<TestWorker> {
  const env = {
    PATH: process.env.PATH,
    MUSTER_NODE_URLS: nodes.map(({ url }) => url).join(','),
    MUSTER_WORKER_SLOTS: '2',
    MUSTER_CONFIG_FILE: '/nonexistent',
  }
  const child: ChildProcess = spawn(process.execPath, [cli, 'worker'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', chunk => {
      output += chunk
    })
  const ended = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  await until(() => output.includes('worker started'))
  return { output: () => output, pid: child.pid as number }
}

export const get = async (url: string): Promise<Body> => await (await fetch(url)).json()
export const put = async (node: NodeProcess, query: string, payload?: unknown): Promise<string> => {
  const headers = { 'content-type': 'application/json' }
  const reply = await fetch(`${node.url}/enqueue?${query}`, {
    method: 'PUT',
    headers,
    body: JSON.stringify({ payload: payload ?? null }),
  })
  return ((await reply.json()) as Body)['Work ID']
}
export const stateOf = async (node: NodeProcess, workId: string): Promise<Body> =>
  await get(`${node.url}/jobs/${workId}`)

/** Gives a new job to this node and waits until it is done. */
export async function roundTrip(node: NodeProcess): Promise<void> {
  const workId = await put(node, 'type=noop')
  await until(async () => (await stateOf(node, workId)).state === 'succeeded')
}
