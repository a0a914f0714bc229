/** Python's hashlib on the same data, for comparison. */
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import type { Processes } from './processes.ts'
import type { HashParams, HashReply } from './tasks/hash.ts'

const program = `
import base64, hashlib, json, sys, time
def chain(data, iterations):
    sha512 = hashlib.sha512
    for _ in range(iterations):
        data = sha512(data).digest()
    return data
params = json.load(sys.stdin)
data = base64.b64decode(params['data'])
started = time.perf_counter_ns()
digest = chain(data, params['iterations'])
elapsed = time.perf_counter_ns() - started
print(json.dumps({'elapsedMs': elapsed / 1e6, 'digest': digest.hex()}))
`

const withinMs = 60_000

/** @returns undefined when there is no python3 here, or it fails */
export async function hashInPython(processes: Processes, params: HashParams): Promise<HashReply | undefined> {
  const child = processes.spawn(['python3', '-c', program], { stdio: ['pipe', 'pipe', 'ignore'] })
  const timer = setTimeout(() => child.kill('SIGKILL'), withinMs)
  try {
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(JSON.stringify(params))
    const ended = once(child, 'close')
    const output = await text(child.stdout as NodeJS.ReadableStream)
    const [code] = await ended
    return code === 0 ? (JSON.parse(output) as HashReply) : undefined
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
  }
}
