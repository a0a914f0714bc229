/** Whose certificates of nodes are believed: the well-known authorities, and one of the user's. */
import { readFileSync } from 'node:fs'
import { rootCertificates } from 'node:tls'
import { StartupError } from '../errors.ts'

/**
 * @param caFile MUSTER_CA_FILE; '' for none
 * @returns undefined: what Node.js believes by itself
 * @throws StartupError when the file cannot be read
 */
export function trustedAuthorities(caFile: string): string[] | undefined {
  if (caFile === '') return undefined
  try {
    return [...rootCertificates, readFileSync(caFile, 'utf8')]
  } catch (error) {
    throw new StartupError(`MUSTER_CA_FILE cannot be read: ${(error as Error).message}`, { cause: error })
  }
}
