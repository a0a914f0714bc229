/** `muster handlers`: bundles a file of handlers, checks that it loads, and writes it or deploys it to a node. */
import { writeFile } from 'node:fs/promises'
import { makeNodeFetch } from '../client/node-fetch.ts'
import { StartupError } from '../errors.ts'
import { bundleHandlers } from '../handlers/bundle-handlers.ts'
import type { Settings } from '../settings/settings.ts'
import { describeBundle } from '../worker/slots/load-bundle.ts'

/** The node loads them in a process of its own, one after another. */
const answerWithinMs = 120_000

/**
 * @returns the digest and the types of the module that is now in `out` @throws StartupError when it cannot be loaded
 */
export async function bundleTo(out: string, file: string): Promise<string> {
  const bundle = await bundleHandlers(file)
  const types = await describeBundle(bundle, file)
  await writeFile(out, bundle.code)
  return `${bundle.digest} ${types.map(({ type }) => type).join(' ')}`
}

/**
 * @returns the digest and the types that are in force now
 * @throws StartupError when they cannot be used, or no node took them
 */
export async function deployHandlers(file: string, settings: Settings): Promise<string> {
  const { nodeUrls, apiKey, caFile } = settings
  const bundle = await bundleHandlers(file)
  await describeBundle(bundle, file)
  const fetch = await makeNodeFetch({ apiKey, caFile })
  const faults: string[] = []
  for (const url of nodeUrls) {
    try {
      const signal = AbortSignal.timeout(answerWithinMs)
      const reply = await fetch(`${url}/handlers`, { method: 'PUT', bytes: bundle.code, signal })
      const body = (await reply.json()) as { digest: string; types: string[]; detail?: string; action?: string }
      if (reply.ok) return `${body.digest} ${body.types.join(' ')}`
      faults.push(`${url}: ${reply.status} ${body.detail ?? ''} ${body.action ?? ''}`)
      if (reply.status < 500) break
    } catch (error) {
      const { message, cause } = error as Error
      faults.push(`${url}: ${cause instanceof Error ? cause.message : message}`)
    }
  }
  throw new StartupError(`No node took the handlers:\n${faults.map(fault => `  - ${fault}`).join('\n')}
Say where a node is with --url or MUSTER_NODE_URLS.`)
}
