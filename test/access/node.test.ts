/** Access of a whole node as a user meets it: the first key, the commands, TLS, proxies. Runs the built code. */
import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import t, { type Test } from 'tap'
import { Agent, fetch } from 'undici'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { freePort } from '../support/free-port.ts'
import { cli, type NodeProcess, startNodeProcess } from '../support/node-process.ts'
import { patienceMs, until } from '../support/until.ts'

const operatorKey = `operator-${'k'.repeat(32)}`

interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}
const muster = async (args: readonly string[], environment: Record<string, string> = {}): Promise<Outcome> => {
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'NODE_OPTIONS')
  const env = { ...Object.fromEntries(clean), MUSTER_CONFIG_FILE: '/nonexistent', ...environment }
  return await new Promise(resolve => {
    execFile(process.execPath, [cli, ...args], { env, timeout: patienceMs }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr })
    })
  })
}
const folder = async (t: Test): Promise<string> => {
  const path = await mkdtemp(join(tmpdir(), 'muster-access-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}
const bearer = (key: string) => ({ headers: { authorization: `Bearer ${key}` } })

/** Puts a job in and waits for its value: its worker was let in. */
async function runsJobs(url: string, key: string, dispatcher = new Agent()): Promise<boolean> {
  const put = await fetch(`${url}/enqueue?type=countToThree`, { ...bearer(key), method: 'PUT', dispatcher })
  if (put.status !== 200) throw new Error(`${put.status} ${await put.text()}`)
  const values: unknown[] = []
  await until(async () => {
    const pull = await fetch(`${url}/pullCompleted?top=1&waitMs=2000`, { ...bearer(key), method: 'POST', dispatcher })
    values.push(...((await pull.json()) as unknown[]))
    return values.length > 0
  })
  return true
}

t.test('a node that others can reach does not start without a key, and says how to make one', async t => {
  const dataDir = await folder(t)
  const port = String(await freePort())
  const base = { MUSTER_DATA_DIR: dataDir, MUSTER_PORT: port, MUSTER_FLEET: 'none' }
  const open = await muster(['node'], { ...base, MUSTER_HOST: '0.0.0.0' })
  t.equal(open.code, 1)
  const command = /^ {2}(muster keys create .*)$/m.exec(open.stderr)?.[1]?.split(' ').slice(1) ?? []
  t.match(command, ['keys', 'create', '--name', 'admin'], open.stderr)
  const proxied = await muster(['node'], { ...base, MUSTER_TRUSTED_PROXIES: '127.0.0.1' })
  t.match(proxied, { code: 1, stderr: /there is no key/ }, 'others reach it through a proxy, too')
  t.match(await muster(['node'], { ...base, MUSTER_OPERATOR_KEY: 'short' }), { code: 1, stderr: /32 to 1024/ })
  t.match(await muster(['node'], { ...base, MUSTER_OPERATOR_KEY_FILE: '/nonexistent' }), { code: 1, stderr: /ENOENT/ })
  t.match(await muster(['node'], { ...base, MUSTER_TLS_CERT_FILE: '/x' }), { code: 1, stderr: /go together/ })

  const made = await muster(command, { MUSTER_DATA_DIR: dataDir })
  t.match(made, { code: 0, stdout: /^muster_[0-9A-Za-z]{10}_[0-9A-Za-z]{32}\n$/ }, 'with no node running')
  const key = made.stdout.trim()
  const node = await startNodeProcess(t, { MUSTER_DATA_DIR: dataDir, MUSTER_HOST: '0.0.0.0', MUSTER_MIN_WORKERS: '1' })
  t.match(node.output(), /cross the network unencrypted/)
  t.equal((await fetch(`${node.url}/status`)).status, 401)
  t.equal((await fetch(`${node.url}/health/ready`)).status, 200)
  t.ok(await runsJobs(node.url, key), 'a local worker has a token of its own')

  const direct = { MUSTER_DATA_DIR: dataDir }
  const second = await muster(
    ['keys', 'create', '--name', 'ci', '--role', 'submit,read', '--expires-in', '90d'],
    direct,
  )
  const ci = second.stdout.trim()
  t.equal((await fetch(`${node.url}/status`, bearer(ci))).status, 200, 'known at once to the node that runs')
  const byNode = { MUSTER_API_KEY: key, MUSTER_NODE_URLS: node.url }
  const listed = await muster(['keys', 'list'], byNode)
  t.match(listed.stdout, /admin .*operate,submit,collect.*\n.* ci .*submit,read .*expires 20/)
  t.notMatch(listed.stdout, ci.split('_')[2])
  const id = ci.split('_')[1] ?? ''
  const rotated = await muster(['keys', 'rotate', id, '--grace', '1h', '--json'], byNode)
  t.match(JSON.parse(rotated.stdout), { keyId: id, key: new RegExp(`^muster_${id}_`) })
  t.equal((await fetch(`${node.url}/status`, bearer(ci))).status, 200, 'for the grace')
  t.equal((await muster(['keys', 'rotate', 'workers', '--grace', '1h'], byNode)).code, 0)
  t.ok(await runsJobs(node.url, key), 'workers go on')
  t.equal((await muster(['keys', 'revoke', id], direct)).code, 0)
  t.equal((await fetch(`${node.url}/status`, bearer(ci))).status, 401, 'at once')
  t.match(await muster(['keys', 'revoke', id], byNode), { code: 1, stderr: /No key has this id/ })
  t.match(await muster(['keys', 'list'], { ...byNode, MUSTER_API_KEY: 'x' }), { code: 1, stderr: /not known/ })
  t.match(await muster(['keys', 'create', '--name', 'x', '--role', 'root'], direct), {
    code: 1,
    stderr: /one or more of/,
  })
  t.match(await muster(['keys', 'rotate', id, '--grace', 'soon'], direct), { code: 1, stderr: /like 90d/ })
  t.match(await muster(['fleet', 'explain'], byNode), { code: 0, stdout: /latest decision/ })
  const { entries } = (await (await fetch(`${node.url}/audit`, bearer(key))).json()) as { entries: { who: object }[] }
  t.match(
    entries.filter(({ who }) => (who as { kind: string }).kind === 'shell'),
    [{ action: 'key.revoke', target: id }, { action: 'key.create', details: { name: 'ci' } }, { action: 'key.create' }],
    'who acts on Redis itself is in the audit log, too',
  )
})

const serialOf = (port: number): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256)
      socket.destroy()
    })
    socket.on('error', reject)
  })

t.test('TLS in the node: workers and commands trust the authority, and a new certificate needs no restart', async t => {
  const path = await folder(t)
  const [first, second] = [join(path, 'first'), join(path, 'second')]
  const made: Certificates[] = []
  for (const each of [first, second]) {
    await mkdir(each)
    made.push(await makeCertificates(each, 'localhost'))
  }
  const [old, renewed] = made as [Certificates, Certificates]
  const [certFile, keyFile] = [join(path, 'node.crt'), join(path, 'node.key')]
  await copyFile(old.certFile, certFile)
  await copyFile(old.keyFile, keyFile)
  const port = await freePort()
  const url = `https://localhost:${port}`
  const clientSide = { MUSTER_NODE_URLS: url, MUSTER_CA_FILE: old.caFile }
  const keyFileOfOperator = join(path, 'operator-key')
  await writeFile(keyFileOfOperator, `${operatorKey}\n`, { mode: 0o600 })
  const node = await startNodeProcess(t, {
    MUSTER_PORT: String(port),
    MUSTER_TLS_CERT_FILE: certFile,
    MUSTER_TLS_KEY_FILE: keyFile,
    MUSTER_OPERATOR_KEY_FILE: keyFileOfOperator,
    ...clientSide,
  })
  await t.rejects(fetch(`${url}/health/live`), 'an authority that nobody knows')
  await t.rejects(fetch(`http://localhost:${port}/health/live`), 'no plain HTTP')
  const dispatcher = new Agent({ connect: { ca: await readFile(old.caFile, 'utf8') } })
  t.teardown(() => dispatcher.destroy())
  t.ok(await runsJobs(url, operatorKey, dispatcher))
  const asOperator = { ...clientSide, MUSTER_API_KEY: operatorKey }
  t.match(await muster(['keys', 'create', '--name', 'tls', '--role', 'read'], asOperator), {
    code: 0,
    stdout: /^muster_/,
  })
  const oldest = await new Promise<string>((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, maxVersion: 'TLSv1.1' }, () =>
      resolve('connected'),
    )
    socket.on('error', error => resolve((error as NodeJS.ErrnoException).code ?? 'refused'))
    t.teardown(() => socket.destroy())
    setTimeout(reject, patienceMs, new Error('no answer')).unref()
  })
  t.not(oldest, 'connected', 'nothing older than TLS 1.2')

  const before = await serialOf(port)
  await copyFile(renewed.certFile, certFile)
  await until(() => /the new certificate cannot be used/.test(node.output()))
  t.equal(await serialOf(port), before, 'half of a renewal changes nothing')
  await copyFile(renewed.keyFile, keyFile)
  await until(async () => (await serialOf(port)) !== before)
  t.equal(node.output().match(/the new certificate cannot be used/g)?.length, 1, 'told once')
  await until(() => /the certificate was read again/.test(node.output()))
  t.equal((await fetch(`${url}/health/live`, { dispatcher })).status, 200, 'an open connection goes on')
})

t.test('only a trusted proxy may say who calls', async t => {
  const ipOf = async (node: NodeProcess): Promise<string> => {
    const headers = { ...bearer(operatorKey).headers, 'x-forwarded-for': '203.0.113.9' }
    await fetch(`${node.url}/queues/default/resume`, { method: 'POST', headers })
    const page = (await (await fetch(`${node.url}/audit?limit=1`, bearer(operatorKey))).json()) as {
      entries: { ip: string }[]
    }
    return page.entries[0]?.ip ?? ''
  }
  const base = { MUSTER_FLEET: 'none', MUSTER_OPERATOR_KEY: operatorKey }
  t.equal(await ipOf(await startNodeProcess(t, { ...base, MUSTER_TRUSTED_PROXIES: '127.0.0.0/8' })), '203.0.113.9')
  t.equal(await ipOf(await startNodeProcess(t, { ...base, MUSTER_TRUSTED_PROXIES: '10.0.0.0/8' })), '127.0.0.1')
  t.equal(await ipOf(await startNodeProcess(t, base)), '127.0.0.1')
})
