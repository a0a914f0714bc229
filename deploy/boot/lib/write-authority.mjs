/** Takes the authority out of the secrets of a deployment: write-authority.mjs SECRETS CERTIFICATE KEY (names of files). */
import { readFileSync, writeFileSync } from 'node:fs'

const [secretsFile, certificateFile, keyFile] = process.argv.slice(2)

try {
  const { caCertificate, caKey } = JSON.parse(readFileSync(secretsFile, 'utf8'))
  writeFileSync(certificateFile, caCertificate, { mode: 0o600 })
  writeFileSync(keyFile, caKey, { mode: 0o600 })
} catch {
  // What the parser says quotes the text, which is secret.
  process.stderr.write('The secrets of Redis are not what "muster redis secrets" makes.\n')
  process.exitCode = 1
}
