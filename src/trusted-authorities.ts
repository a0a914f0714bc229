/** Whose certificates of nodes are believed: those that Node.js believes by itself, and one of the user's. */
import { readFileSync } from 'node:fs'
import tls from 'node:tls'
import { StartupError } from './errors.ts'

/**
 * @param caFile MUSTER_CA_FILE; '' for none
 * @returns undefined: what Node.js believes by itself
 * @throws StartupError when the file cannot be read
 */
export function trustedAuthorities(caFile: string): string[] | undefined {
  return caFile === '' ? undefined : [...defaultAuthorities(), readPem(caFile, 'MUSTER_CA_FILE')]
}

/** A list of one's own replaces all that Node.js believes, so it starts with that: NODE_EXTRA_CA_CERTS is among it. */
function defaultAuthorities(): string[] {
  // From Node.js 22.15 on; it knows of --use-system-ca, too.
  const read = (tls as { getCACertificates?: (type: 'default') => string[] }).getCACertificates
  if (read !== undefined) return read('default')
  const extra = process.env.NODE_EXTRA_CA_CERTS ?? ''
  return extra === '' ? [...tls.rootCertificates] : [...tls.rootCertificates, readPem(extra, 'NODE_EXTRA_CA_CERTS')]
}

function readPem(file: string, variable: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new StartupError(`${variable} cannot be read: ${(error as Error).message}`, { cause: error })
  }
}
