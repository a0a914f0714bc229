/** The start of a node while Redis is not ready. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { freePort } from '../support/free-port.ts'
import { cli } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

t.test('it waits while Redis takes no writes, and starts then', async t => {
  // As during a failover: the one replica that there must be is away.
  const redis = await startTestRedis(t, { tcp: true, config: { 'min-replicas-to-write': '1' } })
  const client = await redis.client()
  const child = spawn(process.execPath, [cli, 'node'], {
    env: {
      PATH: process.env.PATH,
      MUSTER_CONFIG_FILE: '/nonexistent',
      MUSTER_FLEET: 'none',
      MUSTER_PORT: String(await freePort()),
      MUSTER_DATA_DIR: t.testdir(),
      MUSTER_REDIS_URL: redis.url,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => (output += text))
  const says = async (text: string): Promise<void> =>
    await until(() => {
      if (child.exitCode !== null) throw new Error(`it ended: ${output}`)
      return output.includes(text)
    })
  await says('Redis is not ready to work; waiting for it')
  t.notMatch(output, 'Muster is ready')
  await client.config('SET', 'min-replicas-to-write', '0')
  await says('Muster is ready')
})
