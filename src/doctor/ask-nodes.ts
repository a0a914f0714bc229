/** Asks each node how it is, from outside: without a key what anyone sees, with one the node's own view, too. */
import { Agent, request } from 'undici'
import { trustedAuthorities } from '../client/node-fetch.ts'
import type { NodeReport } from '../contract/node-report.ts'

export interface NodeView {
  readonly url: string
  /** Why it does not answer; absent when it does. */
  readonly error?: string
  /** Why it is not ready; absent when it is. */
  readonly notReady?: string
  readonly report?: NodeReport
  /** Why there is no report of a node that answers. */
  readonly noReport?: 'not let in' | 'none' | string
  /** Its clock against that of this machine: above 0 when it is ahead. */
  readonly clockAheadMs?: number
}

export interface AskOptions {
  readonly urls: readonly string[]
  /** '' for none. */
  readonly apiKey: string
  /** '' for none besides the well-known. */
  readonly caFile: string
}

const withinMs = 5000

/** @throws StartupError when the file of the authority cannot be read */
export async function askNodes({ urls, apiKey, caFile }: AskOptions): Promise<NodeView[]> {
  const ca = trustedAuthorities(caFile)
  const agent = new Agent({ connect: { timeout: withinMs, ...(ca && { ca }) } })
  try {
    return await Promise.all(urls.map(url => askNode(url, apiKey, agent)))
  } finally {
    await agent.destroy()
  }
}

async function askNode(url: string, apiKey: string, agent: Agent): Promise<NodeView> {
  const get = async (path: string, headers: Record<string, string> = {}) => {
    const signal = AbortSignal.timeout(withinMs)
    const { statusCode, body } = await request(url + path, { dispatcher: agent, headers, signal })
    const text = await body.text()
    return { status: statusCode, text, json: (): Record<string, unknown> => JSON.parse(text) }
  }
  try {
    const live = await get('/health/live')
    if (live.status !== 200) return { url, error: `answers ${live.status} to /health/live` }
    const ready = await get('/health/ready')
    const notReady = ready.status === 200 ? undefined : `${ready.status} ${reasonOf(ready.text)}`.trim()
    const sentAt = Date.now()
    const checks = await get('/health/checks', apiKey === '' ? {} : { authorization: `Bearer ${apiKey}` })
    const takenAt = (sentAt + Date.now()) / 2
    const base = { url, ...(notReady !== undefined && { notReady }) }
    if (checks.status === 401 || checks.status === 403) return { ...base, noReport: 'not let in' }
    if (checks.status === 404) return { ...base, noReport: 'none' }
    if (checks.status !== 200) return { ...base, noReport: `${checks.status} ${reasonOf(checks.text)}`.trim() }
    const report = checks.json() as unknown as NodeReport
    return { ...base, report, clockAheadMs: Date.parse(report.now) - takenAt }
  } catch (error) {
    return { url, error: whyOf(error) }
  }
}

function reasonOf(text: string): string {
  try {
    const { code, detail } = JSON.parse(text) as { code?: string; detail?: string }
    return detail ?? code ?? ''
  } catch {
    return ''
  }
}

function whyOf(error: unknown): string {
  const { name, message, code, cause } = error as Error & { code?: string }
  if (name === 'TimeoutError') return `no answer within ${withinMs / 1000} s`
  return message !== '' ? message : (code ?? String(cause ?? name))
}
