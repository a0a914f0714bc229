/** How the commands call nodes: with the key of the settings, and with trust in the authority that they name. */
import { Agent, fetch as fetchBy } from 'undici'
import { trustedAuthorities } from '../trusted-authorities.ts'

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
