/** A private authority and one certificate of it, for a server that is known by a name instead of its address. */
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { patienceMs } from './until.ts'

const run = promisify(execFile)

export interface Certificates {
  readonly caFile: string
  readonly certFile: string
  readonly keyFile: string
  /** The only name in the certificate. */
  readonly name: string
}

/** Makes them with the openssl command in `folder`. */
export async function makeCertificates(folder: string, name = 'muster-redis'): Promise<Certificates> {
  const path = (file: string): string => join(folder, file)
  const openssl = async (...args: string[]): Promise<void> => {
    await run('openssl', args, { timeout: patienceMs })
  }
  const [caKey, caFile, keyFile, request, certFile, extensions] = [
    path('ca.key'),
    path('ca.crt'),
    path('server.key'),
    path('server.csr'),
    path('server.crt'),
    path('extensions'),
  ] as const
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const authority = ['-days', '2', '-subj', '/CN=test authority', '-addext', 'basicConstraints=critical,CA:TRUE']
  await openssl('req', '-x509', ...newKey, '-keyout', caKey, '-out', caFile, ...authority)
  await openssl('req', ...newKey, '-keyout', keyFile, '-out', request, '-subj', '/CN=redis')
  await writeFile(extensions, `subjectAltName=DNS:${name}\n`)
  const signing = ['-CA', caFile, '-CAkey', caKey, '-set_serial', '2', '-days', '2', '-extfile', extensions]
  await openssl('x509', '-req', '-in', request, '-out', certFile, ...signing)
  return { caFile, certFile, keyFile, name }
}
