import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { promisify } from 'node:util'
import t from 'tap'
import {
  authorityDays,
  expiresAtMs,
  makeServerCertificate,
  namesOf,
  serverDays,
} from '../../../src/redis-server/ha/certificates.ts'
import { makeSecrets } from '../../../src/redis-server/ha/secrets.ts'
import { patienceMs } from '../../support/until.ts'

t.test('certificates are strict enough for anybody', async t => {
  const nowMs = Date.now()
  const secrets = await makeSecrets(['redis.example'], nowMs)
  const authority = new X509Certificate(secrets.caCertificate)
  const server = new X509Certificate(secrets.serverCertificate)
  t.ok(authority.ca)
  t.notOk(server.ca)
  t.ok(server.checkIssued(authority))
  t.ok(server.verify(authority.publicKey))
  const folder = t.testdir({ ca: secrets.caCertificate, server: secrets.serverCertificate })
  const openssl = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)('openssl', args, { cwd: folder, timeout: patienceMs })).stdout
  t.match(await openssl('verify', '-x509_strict', '-CAfile', 'ca', '-purpose', 'sslserver', 'server'), 'server: OK')
  t.match(await openssl('verify', '-x509_strict', '-CAfile', 'ca', '-purpose', 'sslclient', 'server'), 'server: OK')
  const ofAuthority = await openssl('x509', '-in', 'ca', '-noout', '-text')
  t.match(ofAuthority, /Basic Constraints: critical\s+CA:TRUE, pathlen:0\s/)
  t.match(ofAuthority, /Key Usage: critical\s+Certificate Sign, CRL Sign\s/)
  const ofServer = await openssl('x509', '-in', 'server', '-noout', '-text')
  t.match(ofServer, /Version: 3 /)
  t.match(ofServer, /Basic Constraints: critical\s+CA:FALSE\s/)
  t.match(ofServer, /[^d] Key Usage: critical\s+Digital Signature\s/)
  t.match(ofServer, /TLS Web Server Authentication, TLS Web Client Authentication\s/)
  t.ok(server.checkHost('muster-redis'))
  t.notOk(server.checkHost('elsewhere'))
  t.strictSame(namesOf(secrets.serverCertificate), ['muster-redis', 'localhost', 'redis.example'])
  const day = 24 * 60 * 60_000
  t.ok(Math.abs(expiresAtMs(secrets.serverCertificate) - nowMs - serverDays * day) < 2000)
  t.ok(Math.abs(expiresAtMs(secrets.caCertificate) - nowMs - authorityDays * day) < 2000)
  const late = await makeServerCertificate(
    { certificate: secrets.caCertificate, key: secrets.caKey },
    [],
    Date.UTC(2055, 1, 3),
  )
  t.match(new X509Certificate(late.certificate).validFrom, /Feb {2}2 .* 2055/, 'years from 2050 on')
})
