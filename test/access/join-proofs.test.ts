/** What an instance shows beside the join secret: its address, the word of its first join, its identity document. */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readIdentityCertificates, verifyIdentityDocument } from '../../src/access/identity-document.ts'
import { FirstUse, type JoinCall, JoinProofs } from '../../src/access/join-proofs.ts'
import type { Instance } from '../../src/fleet/providers/provider.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { startTestApi } from '../support/api.ts'
import { startTestRedis } from '../support/redis.ts'

const now = Date.parse('2026-11-26T12:00:00Z')
const word = (): string => randomBytes(32).toString('hex')
const instance: Instance = {
  ...{ id: 'i-0a', pool: 'default', slots: 1, decisionId: 'd', launchedAt: now, state: 'running' },
  ...{ addresses: ['10.0.1.7', '203.0.113.9'], accountId: '123456789012' },
}

/** An authority as that of AWS in a region: a certificate that signs identity documents. */
function makeSigner(folder: string, name: string) {
  const [key, certificate] = [join(folder, `${name}.key`), join(folder, `${name}.pem`)]
  const openssl = (...args: string[]): Buffer => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] })
  const subject = `/C=US/O=${name}`
  openssl(
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '3650'],
    ...['-subj', subject],
  )
  return {
    certificate,
    /** As the metadata service has it: PKCS #7 in base64, the document inside, no certificate. */
    sign(document: object, ...more: string[]): string {
      const file = join(folder, 'document')
      writeFileSync(file, JSON.stringify(document))
      const base = ['cms', '-sign', '-binary', '-nodetach', '-md', 'sha256', '-outform', 'DER', '-in', file]
      return openssl(...base, '-signer', certificate, '-inkey', key, ...more).toString('base64')
    },
  }
}

const documentOf = (more: object = {}) => ({
  ...{ instanceId: instance.id, accountId: '123456789012', region: 'eu-central-1', imageId: 'ami-1' },
  ...{ pendingTime: '2026-11-26T11:58:00Z', version: '2017-09-30' },
  ...more,
})

async function setUp(t: Test, proofs: 'none' | 'address' | 'document' | 'both', certificate?: string) {
  const redis = await (await startTestRedis(t)).client()
  const certificates = certificate === undefined ? [] : await readIdentityCertificates(certificate)
  const options = { proofs, certificates, region: 'eu-central-1', youngMs: 600_000, clock: () => now }
  const open = (): JoinProofs => new JoinProofs({ ...options, firstUse: new FirstUse(redis, 60_000) })
  const call = (more: Partial<JoinCall> = {}): JoinCall => ({ ip: '10.0.1.7', nonce: word(), document: '', ...more })
  return { redis, open, call }
}

t.test('a join comes from an address of the instance', async t => {
  const { open, call } = await setUp(t, 'address')
  const proofs = open()
  t.match(await proofs.check(instance, call({ ip: '10.0.1.8' })), /calls from 10\.0\.1\.8, which is no address/)
  const nonce = word()
  for (const ip of ['10.0.1.7', '::ffff:10.0.1.7', '203.0.113.9'])
    t.equal(await proofs.check(instance, call({ ip, nonce })), undefined, ip)
  t.equal(await proofs.check({ ...instance, addresses: [] }, call()), 'hidden', 'EC2 does not show them yet')
  const { addresses: _, ...local } = instance
  t.equal(await proofs.check({ ...local, id: 'local' }, call()), undefined, 'a provider that knows none')
})

t.test('who joined first stays the one, on every node', async t => {
  const { redis, open, call } = await setUp(t, 'none')
  const [one, other] = [open(), open()]
  const nonce = word()
  t.equal(await one.check(instance, call({ nonce })), undefined)
  t.equal(await other.check(instance, call({ nonce })), undefined, 'its reply got lost: it asks the other node')
  for (const wrong of [word(), ''])
    t.match(await other.check(instance, call({ nonce: wrong })), /has joined before/, wrong === '' ? 'none' : 'another')
  t.equal(await one.check({ ...instance, id: 'i-0b' }, call()), undefined, 'another instance is free')
  t.notMatch(await redis.get('{muster}:access:joined:i-0a'), nonce, 'the word itself is not kept')

  const plain = { ...instance, id: 'i-0c' }
  t.equal(await one.check(plain, call({ nonce: '' })), undefined, 'one that has no word joins once')
  t.match(await one.check(plain, call({ nonce: '' })), /has joined before/)
  const ttl = await redis.pttl('{muster}:access:joined:i-0c')
  t.ok(ttl > 0 && ttl <= 60_000, 'and again when its token has run out')
})

t.test('an identity document counts when the region has signed it, for this instance, and not long ago', async t => {
  const folder = t.testdir()
  const aws = makeSigner(folder, 'aws')
  const other = makeSigner(folder, 'other')
  const { open, call } = await setUp(t, 'both', aws.certificate)
  const proofs = open()
  const nocerts = '-nocerts'
  const refused: Record<string, readonly [string, RegExp]> = {
    none: ['', /shows no identity document/],
    nonsense: [randomBytes(600).toString('base64'), /shows no identity document/],
    'another signer': [other.sign(documentOf(), nocerts), /shows no identity document/],
    'another signer, whose certificate comes along': [other.sign(documentOf()), /shows no identity document/],
    'not what was meant': [aws.sign({ hello: 'world' }, nocerts), /shows no identity document/],
    'another instance': [aws.sign(documentOf({ instanceId: 'i-0f' }), nocerts), /is of i-0f/],
    'another region': [aws.sign(documentOf({ region: 'us-east-1' }), nocerts), /of the region us-east-1/],
    'another account': [aws.sign(documentOf({ accountId: '999999999999' }), nocerts), /of the account 9{12}/],
    'an old one': [aws.sign(documentOf({ pendingTime: '2026-11-25T12:00:00Z' }), nocerts), /too old for a first join/],
  }
  for (const [what, [document, why]] of Object.entries(refused))
    t.match(await proofs.check(instance, call({ document })), why, what)

  const good = aws.sign(documentOf(), nocerts)
  const nonce = word()
  t.match(await proofs.check(instance, call({ document: good, ip: '10.0.1.8' })), /no address/, 'from its address')
  t.equal(await proofs.check(instance, call({ document: good, nonce })), undefined)
  const lines = good.replaceAll(/.{64}/g, line => `${line}\n`)
  t.equal(await proofs.check(instance, call({ document: lines, nonce })), undefined, 'in lines')
  const old = aws.sign(documentOf({ pendingTime: '2026-11-01T12:00:00Z' }), nocerts)
  t.equal(await proofs.check(instance, call({ document: old, nonce })), undefined, 'its word makes up for the time')

  // Any byte of what was signed, or of the signature.
  const certificates = await readIdentityCertificates(aws.certificate)
  const bytes = Buffer.from(good, 'base64')
  const at = bytes.indexOf('123456789012')
  bytes.write('999999999999', at)
  t.equal(await verifyIdentityDocument(bytes.toString('base64'), certificates), undefined)
  t.ok(await verifyIdentityDocument(good, certificates))
})

t.test('the settings say what is asked for, and what is missing for it', async t => {
  const base = {
    ...{ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_FLEET: 'ec2', MUSTER_EC2_LAUNCH_TEMPLATE: 'workers' },
    ...{ AWS_REGION: 'eu-central-1', MUSTER_NODE_URLS: 'https://10.0.0.10:5000' },
  }
  t.equal(readSettings(base).workerJoinProof, 'address')
  t.throws(
    () => readSettings({ ...base, MUSTER_WORKER_JOIN_PROOF: 'both' }),
    /MUSTER_EC2_IDENTITY_CERT_FILE must be set/,
  )
  const http = { ...base, MUSTER_NODE_URLS: 'http://10.0.0.10:5000' }
  t.throws(() => readSettings(http), /must begin with https/)
  t.throws(
    () => readSettings({ ...base, MUSTER_BUNDLE_URL: 'http://bundles.example.com/x.tgz' }),
    /must begin with https/,
  )
  const elsewhere = { ...base, MUSTER_BUNDLE_URL: 'https://bundles.example.com/x.tgz' }
  t.throws(() => readSettings(elsewhere), /MUSTER_BUNDLE_SHA256 must be set/)
  t.throws(() => readSettings({ ...elsewhere, MUSTER_BUNDLE_SHA256: 'abc' }), /MUSTER_BUNDLE_SHA256 must be a SHA-256/)
  t.doesNotThrow(() => readSettings({ ...elsewhere, MUSTER_BUNDLE_SHA256: 'a'.repeat(64) }))
  t.doesNotThrow(() => readSettings({ ...http, MUSTER_INSECURE: 'yes' }))
  await t.rejects(readIdentityCertificates('/nonexistent'), /MUSTER_EC2_IDENTITY_CERT_FILE/)
})

t.test('POST /workers/join says why it refuses, and gives no token', async t => {
  const joinSecret = `join-${'s'.repeat(32)}`
  const api = await startTestApi(t, { MUSTER_WORKER_JOIN_SECRET: joinSecret, MUSTER_OPERATOR_KEY: 'o'.repeat(40) })
  const shown: Instance[] = [{ ...instance, addresses: ['10.0.1.7'] }]
  Object.assign(api.fleet, { instance: async (id: string) => shown.find(one => one.id === id) })
  const headers = { authorization: `Bearer ${joinSecret}` }
  const ask = async (json: object) => await api.call('POST', '/workers/join', { headers, json })
  const asked = { instanceId: instance.id, queue: 'default', nonce: word() }
  t.match(await ask(asked), { status: 403, body: { code: 'forbidden', detail: /calls from .*no address/ } })
  shown[0] = { ...instance, addresses: [] }
  t.match(await ask(asked), { status: 404, body: { code: 'instance_not_found' } })
  shown[0] = { ...instance, addresses: ['127.0.0.1', '::1'] }
  t.match(await ask(asked), { status: 200, body: { token: /^mwt\./ } })
  t.match(await ask({ ...asked, nonce: word() }), { status: 403, body: { detail: /has joined before/ } })
  t.match(await ask({ ...asked, nonce: 'short' }), { status: 400 })
  t.match(await ask({ ...asked, document: 'x'.repeat(20_000) }), { status: 400 })
  t.match(await ask(asked), { status: 200 }, 'the one that it is may join again')
})
