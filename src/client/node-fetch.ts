/** Whose certificates of nodes are believed: those that Node.js believes by itself, and one of the user's. */
import { readFileSync } from 'node:fs'
import tls from 'node:tls'
import { Agent, fetch as fetchBy } from 'undici'
import { StartupError } from '../errors.ts'

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

/** How the commands call nodes: with the key of the settings, and with trust in the authority that they name. */
export type NodeFetch = (url: string, init?: NodeRequest) => Promise<NodeReply>

export interface NodeRequest {
  readonly method?: string
  /** Sent as JSON. */
  readonly json?: unknown
  /** Sent as they are. */
  readonly bytes?: Buffer
  readonly signal?: AbortSignal
}

export interface NodeReply {
  readonly ok: boolean
  readonly status: number
  json(): Promise<unknown>
}

/**
 * @param settings.apiKey '' for none
 * @param settings.caFile '' for the well-known authorities
 * @throws StartupError when that file cannot be read
 */
export async function makeNodeFetch({ apiKey, caFile }: { apiKey: string; caFile: string }): Promise<NodeFetch> {
  const ca = trustedAuthorities(caFile)
  const dispatcher = new Agent({ connect: { timeout: 5000, ...(ca !== undefined && { ca }) } })
  return async (url, { method = 'GET', json, bytes, signal } = {}) =>
    await fetchBy(url, {
      method,
      dispatcher,
      headers: {
        ...(apiKey !== '' && { authorization: `Bearer ${apiKey}` }),
        ...(json !== undefined && { 'content-type': 'application/json' }),
        ...(bytes !== undefined && { 'content-type': 'application/octet-stream' }),
      },
      ...(json !== undefined && { body: JSON.stringify(json) }),
      ...(bytes !== undefined && { body: bytes }),
      ...(signal !== undefined && { signal }),
    })
}
