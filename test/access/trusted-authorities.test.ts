/** Whom commands and workers believe, asked of a process with each environment: Node.js reads its part at start. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { trustedAuthorities } from '../../src/client/node-fetch.ts'
import { makeCertificates } from '../support/certificates.ts'
import { cli } from '../support/node-process.ts'

t.test('MUSTER_CA_FILE adds to what Node.js believes, NODE_EXTRA_CA_CERTS included', async t => {
  t.equal(trustedAuthorities(''), undefined)
  t.throws(() => trustedAuthorities('/nonexistent'), /MUSTER_CA_FILE cannot be read/)
  const folder = t.testdir({ own: {}, extra: {} })
  const { caFile: own } = await makeCertificates(join(folder, 'own'))
  const { caFile: extra } = await makeCertificates(join(folder, 'extra'))
  const built = pathToFileURL(join(cli, '../client/node-fetch.js')).href
  const count = (environment: Record<string, string>): number => {
    const script = `const { trustedAuthorities } = await import('${built}'); console.log(new Set(trustedAuthorities('${own}').map(pem => pem.trim())).size)`
    const env = { PATH: process.env.PATH, ...environment }
    return Number(execFileSync(process.execPath, ['--input-type=module', '-e', script], { env, encoding: 'utf8' }))
  }
  const without = count({})
  t.ok(without > 50, `${without} authorities`)
  t.equal(count({ NODE_EXTRA_CA_CERTS: extra }), without + 1)
})
