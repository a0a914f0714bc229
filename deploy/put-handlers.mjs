/**
 * Hands a module that `muster handlers bundle` has made to a deployment: the first node that answers takes it for all.
 *
 *   put-handlers.mjs --urls URL,URL --file FILE --sha256 DIGEST [--key-file FILE] [--ca FILE]
 *
 * Needs nothing but Node.js. Exit code 0: they are in force; 1: they are not, and those before stay.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { describe, makeCall } from './call-node.mjs'

/** The node loads them in a process of its own, one after another. */
const answerWithinMs = 120_000

const { values: options } = parseArgs({
  options: {
    urls: { type: 'string' },
    file: { type: 'string' },
    sha256: { type: 'string' },
    'key-file': { type: 'string' },
    ca: { type: 'string' },
  },
})
const urls = (options.urls ?? '').split(',').filter(url => url !== '')
if (urls.length === 0 || options.file === undefined)
  end(1, 'say which nodes, and which file: --urls URL,URL --file FILE')
const body = readFileSync(options.file)
const digest = createHash('sha256').update(body).digest('hex')
if (digest !== options.sha256)
  end(1, `${options.file} is not what was uploaded: its SHA-256 is ${digest}, not ${options.sha256}`)
const call = makeCall({ keyFile: options['key-file'], caFile: options.ca })

const faults = []
for (const url of urls) {
  const reply = await put(url)
  if (reply.status === 200) {
    process.stdout.write(`  ${url}: the handlers ${reply.json.digest} are in force\n`)
    end(0)
  }
  faults.push(`${url} does not take the handlers: ${describe(reply)}`)
  // Another node would say the same of them.
  if (reply.status >= 400 && reply.status < 500) break
}
end(1, faults.join('\n'))

async function put(url) {
  const headers = { 'content-type': 'text/javascript' }
  return await call(url, 'PUT', '/handlers', { headers, body, timeoutMs: answerWithinMs }).catch(error => ({
    status: 0,
    text: error.message,
  }))
}

function end(code, why) {
  if (why !== undefined) process.stderr.write(`${why}\n`)
  process.exit(code)
}
