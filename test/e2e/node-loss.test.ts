/** One of two nodes is lost: killed, or stopped still; workers move over, and nothing is run for nothing. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { type NodeProcess, processesOf } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { get, put, roundTrip, startNodes, startWorker, stateOf } from '../support/two-nodes.ts'
import { until } from '../support/until.ts'

const handlers = fileURLToPath(new URL('../support/worker-handlers.mjs', import.meta.url))
const folder = await mkdtemp(join(tmpdir(), 'muster-loss-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

/** A job that runs until it is let go. */
async function startHeld(node: NodeProcess, name: string): Promise<{ workId: string; letGo: () => Promise<void> }> {
  const gate = join(folder, name)
  const workId = await put(node, 'type=gated', { gate })
  await until(async () => (await stateOf(node, workId)).state === 'running')
  return { workId, letGo: async () => await writeFile(gate, '') }
}

t.test('a node that is killed, and one that stands still', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const nodes = await startNodes(t, redis, { MUSTER_HANDLERS: handlers })
  const [a, b] = nodes
  const worker = await startWorker(t, nodes)
  await until(async () => (await get(`${a.url}/status`)).Workers === 1)
  await roundTrip(a)
  const moves = () =>
    [...worker.output().matchAll(/"from":"([^"]*)","to":"([^"]*)","reason":"([^"]*)"/g)].map(
      ([, from, to, reason]) => ({ from, to, reason }),
    )

  // One of the two is the one that the worker talks to, and comes back to. A node that is slow is left, too, at any time:
  // only for as long as the other one stands still, nobody is there to move to.
  let home: string | undefined
  for (const [still, other] of [
    [a, b],
    [b, a],
  ] as const) {
    const { workId, letGo } = await startHeld(other, `beside ${still.url.split(':').at(-1)}`)
    const before = moves()
    const current = before.at(-1)?.to ?? home
    still.kill('SIGSTOP')
    // The node that stands still holds the worker's long poll: it is moved, or this job is never done.
    await roundTrip(other)
    await letGo()
    await until(async () => (await stateOf(other, workId)).state === 'succeeded')
    t.match(await stateOf(other, workId), { attemptsMade: 1, lostLeases: 0 }, 'what ran goes on')
    const left = moves().slice(before.length)
    home ??= moves()[0]?.from ?? other.url
    t.same(
      left.filter(({ reason }) => reason === 'the node is silent').map(({ from }) => from),
      (current ?? home) === still.url ? [still.url] : [],
      'the worker leaves the node if it talks to it, and else stays',
    )
    still.kill('SIGCONT')
    await until(async () => (await fetch(`${still.url}/health/ready`)).status === 200)
    // A worker that left it comes back to it, before the other one is stopped.
    await until(() => (moves().at(-1)?.to ?? home) === home)
  }
  t.ok(moves().length >= 1, 'it left the one it talked to')

  const [dead, other] = home === a.url ? [a, b] : [b, a]
  const { workId, letGo } = await startHeld(other, 'beside the dead')
  dead.kill('SIGKILL')
  await dead.ended()
  await roundTrip(other)
  await letGo()
  await until(async () => (await stateOf(other, workId)).state === 'succeeded')
  t.match(await stateOf(other, workId), { attemptsMade: 1, lostLeases: 0 }, 'what ran goes on')
})

t.test('the local workers of a node that died run for nothing no longer', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const local = {
    MUSTER_FLEET: 'local',
    MUSTER_MAX_WORKERS: '1',
    MUSTER_HANDLERS: handlers,
    MUSTER_WORKER_ORPHAN_MS: '10000',
  }
  const [a, b] = await startNodes(t, redis, local)
  const { workId, letGo } = await startHeld(b, 'of the local worker')
  const workersOf = async (node: NodeProcess): Promise<number> =>
    (await processesOf(node.dataDir)).filter(({ command }) => / worker /.test(command)).length
  t.equal(await workersOf(a), 1, 'the first node holds the lease, so the worker is its own')
  a.kill('SIGKILL')
  await a.ended()
  await until(async () => (await workersOf(a)) === 0)
  await letGo()
  await until(async () => (await stateOf(b, workId)).state === 'succeeded')
  t.match(await stateOf(b, workId), { attemptsMade: 1 }, 'done by a worker of the other node, no attempt spent')
  t.equal(await workersOf(b), 1)
})
