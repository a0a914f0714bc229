/** One of two nodes is lost: killed, or stopped still; workers move over, and nothing is run for nothing. */
import t from 'tap'
import { type NodeProcess, processesOf } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { get, put, roundTrip, startNodes, startWorker, stateOf } from '../support/two-nodes.ts'
import { until } from '../support/until.ts'

t.test('a node that is killed, and one that stands still', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const nodes = await startNodes(t, redis)
  const [a, b] = nodes
  const worker = await startWorker(t, nodes)
  await until(async () => (await get(`${a.url}/status`)).Workers === 1)
  await roundTrip(a)
  const moves = (reason: string): number => worker.output().split(reason).length - 1

  // One of the two is the one that the worker talks to.
  let home: NodeProcess | undefined
  for (const [still, other] of [
    [a, b],
    [b, a],
  ] as const) {
    const running = await put(other, 'type=sleep', { ms: 1500 })
    await until(async () => (await stateOf(other, running)).state === 'running')
    still.kill('SIGSTOP')
    // The node that stands still holds the worker's long poll: it is moved, or this job is never done.
    await roundTrip(other)
    if (moves('the node is silent') > 0) home ??= still
    await until(async () => (await stateOf(other, running)).state === 'succeeded')
    t.match(await stateOf(other, running), { attemptsMade: 1, lostLeases: 0 }, 'what ran goes on')
    still.kill('SIGCONT')
    await until(async () => (await fetch(`${still.url}/health/ready`)).status === 200)
    // A worker that left it comes back to it, before the other one is stopped.
    await until(() => moves('the node of this worker is back') === moves('the node is silent'))
  }
  t.equal(moves('the node is silent'), 1, 'the worker moved once, away from the one it talked to')

  const [dead, other] = home === a ? [a, b] : [b, a]
  const running = await put(other, 'type=sleep', { ms: 1500 })
  await until(async () => (await stateOf(other, running)).state === 'running')
  dead.kill('SIGKILL')
  await dead.ended()
  await roundTrip(other)
  await until(async () => (await stateOf(other, running)).state === 'succeeded')
  t.match(await stateOf(other, running), { attemptsMade: 1, lostLeases: 0 }, 'what ran goes on')
})

t.test('the local workers of a node that died run for nothing no longer', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const local = { MUSTER_FLEET: 'local', MUSTER_MAX_WORKERS: '1', MUSTER_WORKER_ORPHAN_MS: '3000' }
  const [a, b] = await startNodes(t, redis, local)
  const workId = await put(b, 'type=sleep', { ms: 1000 })
  await until(async () => (await stateOf(b, workId)).state === 'running')
  const workersOf = async (node: NodeProcess): Promise<number> =>
    (await processesOf(node.dataDir)).filter(({ command }) => / worker /.test(command)).length
  t.equal(await workersOf(a), 1, 'the first node holds the lease, so the worker is its own')
  a.kill('SIGKILL')
  await a.ended()
  await until(async () => (await workersOf(a)) === 0)
  await until(async () => (await stateOf(b, workId)).state === 'succeeded')
  t.match(await stateOf(b, workId), { attemptsMade: 1 }, 'done by a worker of the other node, no attempt spent')
  t.equal(await workersOf(b), 1)
})
