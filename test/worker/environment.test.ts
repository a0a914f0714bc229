/** What handlers can read of the environment: what is named, and no secret, whoever started their worker. */
import t from 'tap'
import { workerEnvironment } from '../../src/fleet/providers/worker-environment.ts'
import { childEnvironment } from '../../src/settings/child-environment.ts'
import { readSettings, secretVariables } from '../../src/settings/settings.ts'
import { startWorker } from '../support/agent.ts'

const foreignSecrets = ['AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'REDISCLI_AUTH', 'NPM_TOKEN', 'NODE_AUTH_TOKEN']
const harmless = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR', 'NODE_EXTRA_CA_CERTS', 'HTTPS_PROXY', 'no_proxy']

t.test('of everything there is, a child gets what is harmless and what is named', async t => {
  t.ok(secretVariables.includes('MUSTER_OPERATOR_KEY') && secretVariables.includes('MUSTER_WORKER_TOKEN'))
  const all = Object.fromEntries(
    [...secretVariables, ...foreignSecrets, ...harmless, 'MINE', 'CREDENTIALS_DIRECTORY'].map(name => [name, name]),
  )
  t.same(Object.keys(childEnvironment(all, ['MINE'])).toSorted(), [...harmless, 'MINE'].toSorted())
})

t.test('no secret of the settings can be named', async t => {
  for (const name of secretVariables)
    t.throws(() => readSettings({ MUSTER_PASS_ENV: `MINE, ${name}` }), {
      message: new RegExp(`names ${name}, a secret`),
    })
  t.throws(() => readSettings({ MUSTER_PASS_ENV: 'A=1' }), { message: /no name of a variable/ })
})

t.test('local workers get no secret either, but what handlers may see', async t => {
  const outer = {
    ...Object.fromEntries(foreignSecrets.map(name => [name, 'secret'])),
    MUSTER_PASS_ENV: 'MINE',
    MINE: '1',
  }
  const environment = workerEnvironment(readSettings(outer), outer, 'http://127.0.0.1:1')
  t.match(environment, { MINE: '1', MUSTER_PASS_ENV: 'MINE' })
  t.notMatch(JSON.stringify(environment), /secret/)
})

t.test('a handler sees just that', async t => {
  const added = [...secretVariables, ...foreignSecrets, 'MINE', 'OTHER']
  const before = { ...process.env }
  for (const name of added) process.env[name] = 'x'
  t.teardown(() => {
    for (const name of added) if (before[name] === undefined) delete process.env[name]
  })
  const { node } = await startWorker(t, { MUSTER_PASS_ENV: 'MINE' })
  const [id] = node.add({ type: 'env' }) as [string]
  const { value } = await node.result(id)
  const seen = (value as { json: string[] }).json
  t.ok(seen.includes('PATH') && seen.includes('MINE'))
  t.same(
    seen.filter(name => added.includes(name)),
    ['MINE'],
  )
})
