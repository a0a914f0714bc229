/** `muster fleet explain`: asks a node for decisions, prints them in words, and takes each again. */
import { StartupError } from '../../errors.ts'
import { explain, type RecordedDecision } from './explain.ts'

export interface ExplainOptions {
  /** Nodes to ask: the first that answers. */
  readonly urls: readonly string[]
  /** Which decision; without it the latest of each pool. */
  readonly id?: string
  readonly print: (line: string) => void
  /** How nodes are called: with which key, trusting whom. */
  readonly fetch: NodeFetch
}

export type NodeFetch = (
  url: string,
  init: { readonly signal: AbortSignal },
) => Promise<{ readonly ok: boolean; readonly status: number; json(): Promise<unknown> }>

type Reply = Omit<RecordedDecision, 'at'> & { readonly at: string }

const timeoutMs = 10_000

/**
 * @returns the exit code: 0, or 1 when a decision is not the same when it is taken again
 * @throws StartupError when no node answers, or there is no such decision
 */
export async function runExplain({ urls, id, print, fetch }: ExplainOptions): Promise<number> {
  const nodes = { urls, fetch }
  const replies =
    id === undefined ? await latest(nodes) : [await ask(nodes, `/fleet/decisions/${encodeURIComponent(id)}`)]
  let code = 0
  for (const reply of replies as readonly Reply[]) {
    const { lines, replay } = explain({ ...reply, at: Date.parse(reply.at) })
    for (const line of lines) print(line)
    if (replay === 'different') code = 1
  }
  return code
}

type Nodes = Pick<ExplainOptions, 'urls' | 'fetch'>

async function latest(nodes: Nodes): Promise<unknown[]> {
  const { pools } = (await ask(nodes, '/fleet')) as { pools: { queue: string }[] }
  const decisions = await Promise.all(
    pools.map(({ queue }) =>
      ask(nodes, `/fleet/pools/${encodeURIComponent(queue)}/decision`, { orNothing: 'decision_not_found' }),
    ),
  )
  const found = decisions.filter(decision => decision !== undefined)
  if (found.length === 0) throw new StartupError('Nothing was decided yet: has a node a fleet (MUSTER_FLEET)?')
  return found
}

/**
 * A node that does not answer, or cannot, is passed over.
 * @param options.orNothing the code of a problem that is an answer, too: undefined
 */
async function ask({ urls, fetch }: Nodes, path: string, options: { orNothing?: string } = {}): Promise<unknown> {
  let cause: unknown
  for (const url of urls) {
    try {
      const reply = await fetch(url + path, { signal: AbortSignal.timeout(timeoutMs) })
      const body = (await reply.json()) as { code?: string; detail?: string; action?: string }
      if (reply.ok) return body
      if (body.code !== undefined && body.code === options.orNothing) return undefined
      cause = new StartupError(`${url} says: ${body.detail ?? reply.status} ${body.action ?? ''}`.trimEnd())
      if (reply.status < 500) break
    } catch (error) {
      cause = new StartupError(`No node answers at ${urls.join(', ')}. Set --url or MUSTER_NODE_URLS.`, {
        cause: error,
      })
    }
  }
  throw cause
}
