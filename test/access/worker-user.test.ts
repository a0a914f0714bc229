/** Handlers of local workers that run as another user than the node: what they can read of it. Runs the built code. */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { findWorkerUser, refuseReadableKey } from '../../src/fleet/providers/worker-environment.ts'
import { startNodeProcess } from '../support/node-process.ts'

const isRoot = process.getuid?.() === 0
const operatorKey = `operator-${'k'.repeat(32)}`

t.test('the user is checked at the start', async t => {
  t.equal(findWorkerUser(''), undefined)
  t.throws(() => findWorkerUser('no-such-user-here'), /no user of this machine/)
  t.throws(() => findWorkerUser('-x'), /no user of this machine/)
  t.throws(() => findWorkerUser('root', 0), /that may do little/)
  t.throws(() => findWorkerUser('nobody', 12_345), /only root/)
  t.ok((findWorkerUser('nobody', 0)?.uid ?? 0) > 0)
  t.throws(() => refuseReadableKey(operatorKey, undefined), /MUSTER_WORKER_USER.*MUSTER_OPERATOR_KEY_FILE/s)
  t.doesNotThrow(() => refuseReadableKey(operatorKey, { uid: 1, gid: 1 }))
  t.doesNotThrow(() => refuseReadableKey('', undefined))
})

const spy = `import { readFileSync, readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { defineHandler } from 'muster'
const attempt = read => { try { return String(read()).length > 0 ? 'read' : 'empty' } catch (error) { return error.code } }
const dial = path => new Promise(resolve => {
  const socket = connect(path, () => { socket.destroy(); resolve('connected') })
  socket.on('error', error => resolve(error.code))
})
export const look = defineHandler({ type: 'look', async handle({ pid, dataDir }) {
  return {
    uid: process.getuid(),
    groups: process.getgroups().includes(0),
    environment: attempt(() => readFileSync('/proc/' + pid + '/environ')),
    folder: attempt(() => readdirSync(dataDir + '/redis')),
    socket: await dial(dataDir + '/redis/redis.sock'),
    ownEnvironment: Object.keys(process.env).filter(name => /OPERATOR|SECRET/.test(name)),
  }
} })
`

t.test('a handler reads neither the keys, nor the data, nor the Redis of the node', async t => {
  if (!isRoot) return t.comment('NOT CHECKED: only root can start processes of another user')
  const folder = await mkdtemp(join(tmpdir(), 'muster-spy-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o755)
  const handlers = join(folder, 'handlers.mjs')
  await writeFile(handlers, spy)
  const environment = { MUSTER_OPERATOR_KEY: operatorKey, MUSTER_WORKER_USER: 'nobody', MUSTER_MAX_WORKERS: '1' }
  const node = await startNodeProcess(t, environment, ['--handlers', handlers])
  const authorization = `Bearer ${operatorKey}`
  // A version that says whom it is looked at as, in words that reach the answer.
  const look = `throw new Error('loaded as ' + process.getuid() + ', ' + Object.keys(process.env).filter(name => /OPERATOR/.test(name)))`
  const refused = await fetch(`${node.url}/handlers`, {
    ...{ method: 'PUT', body: look },
    headers: { authorization, 'content-type': 'text/javascript' },
  })
  t.equal(refused.status, 400)
  const nobody = findWorkerUser('nobody', 0)?.uid
  t.match(await refused.text(), new RegExp(`loaded as ${nobody}, (?!OPERATOR)`))

  const put = await fetch(`${node.url}/enqueue?type=look&attempts=1`, {
    method: 'PUT',
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify({ payload: { pid: node.pid, dataDir: node.dataDir } }),
  })
  t.equal(put.status, 200)
  const pull = await fetch(`${node.url}/pullCompleted?top=1&failed=include&waitMs=60000`, {
    method: 'POST',
    headers: { authorization },
  })
  const [result] = (await pull.json()) as { Value: object }[]
  t.match(result?.Value, {
    uid: nobody,
    groups: false,
    environment: 'EACCES',
    folder: 'EACCES',
    socket: 'EACCES',
    ownEnvironment: [],
  })
})
