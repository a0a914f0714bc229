/**
 * moto_server, the emulator of AWS, for one test file: on a free port, gone with the test process however that ends.
 * A `Traceback` or an answer 500 in its log fails the test file: the SDK repeats a call that moto does not know, and hides it so.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import type { Test } from 'tap'
import { patienceMs, until } from '../until.ts'
import { httpCall } from './http-call.ts'
import { printQuery } from './query.ts'
import { type Credentials, formType, signedHeaders } from './signature.ts'

export interface Moto {
  readonly url: string
  /** Forgets everything, also that IAM was on (30 to 200 ms). */
  reset(): Promise<void>
  /** Makes the ids of resources that are created from now on repeatable. */
  seed(seed: number): Promise<void>
  /**
   * Turns IAM on: from now on every request must be signed by somebody whose policies allow its action.
   * @returns the keys of one who may do everything
   */
  turnOnIam(): Promise<Credentials>
  /** The keys that `turnOnIam` gave; undefined while IAM is off. */
  readonly admin: Credentials | undefined
}

const howToGetIt = "moto_server is missing. Get it with: pip install 'moto[server]'"
const hasSetpriv = process.platform === 'linux' && spawnSync('setpriv', ['--pdeathsig', 'TERM', 'true']).status === 0

/**
 * Starts moto and returns when it answers. Call it with the `t` of the file, before its tests: where moto is not
 * installed, the whole file is skipped, except in CI, where it fails.
 */
export async function startMoto(t: Test): Promise<Moto> {
  if (!isInstalled()) {
    if (process.env.CI !== undefined && process.env.CI !== '') throw new Error(howToGetIt)
    t.plan(0, howToGetIt)
    process.exit(0)
  }
  const server = await launch()
  let admin: Credentials | undefined
  t.teardown(async () => {
    // It answers 500 first, and then writes why.
    if (server.failure() !== undefined) await until(() => /\w*Error\b/.test(server.failure() ?? ''), 2000)
    await end(server.child)
    const failure = server.failure()
    if (failure !== undefined && !isRace(failure)) throw new Error(`moto does not know what it was asked:\n${failure}`)
  })
  const post = async (path: string, body = ''): Promise<void> => {
    const { status } = await httpCall(server.url, { method: 'POST', path, body })
    if (status !== 200) throw new Error(`moto answered ${status} to ${path}`)
  }
  return {
    url: server.url,
    get admin() {
      return admin
    },
    async reset() {
      await post('/moto-api/reset-auth', 'inf')
      admin = undefined
      await post('/moto-api/reset')
    },
    async seed(seed) {
      await post(`/moto-api/seed?a=${seed}`)
    },
    async turnOnIam() {
      admin = await createAdmin(server.url)
      await post('/moto-api/reset-auth', '0')
      return admin
    },
  }
}

function isInstalled(): boolean {
  return spawnSync('sh', ['-c', 'command -v moto_server']).status === 0
}

async function launch() {
  const command = ['moto_server', '-p', '0']
  const [program = '', ...args] = hasSetpriv ? ['setpriv', '--pdeathsig', 'TERM', ...command] : command
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  let failure: string | undefined
  const url = await new Promise<string>((resolve, reject) => {
    const fail = (why: string): void => {
      child.kill('SIGKILL')
      reject(new Error(`moto_server did not start: ${why}\n${log}`))
    }
    const timer = setTimeout(() => fail(`not within ${patienceMs} ms`), patienceMs)
    child.on('error', error => fail(error.message))
    child.on('exit', code => fail(`it ended with ${code}`))
    child.stderr.on('data', (chunk: Buffer) => {
      log += chunk
      const port = /Running on (http:\/\/127\.0\.0\.1:\d+)/.exec(log)?.[1]
      if (port !== undefined) {
        clearTimeout(timer)
        resolve(port)
      }
      const at = log.search(/^.*" 500 -|^Traceback/m)
      if (at >= 0) failure = log.slice(at, at + 200_000)
      // Enough to find a line that two chunks share.
      else log = log.slice(-2000)
    })
  })
  return { url, child, failure: () => failure }
}

/** Of two writes to one key moto may fail one, which the SDK then repeats: that is a fault of moto, and of no request. */
function isRace(failure: string): boolean {
  const errors = failure.match(/^\w+(?:Error|Exception)\b.*$/gm) ?? []
  return errors.length > 0 && errors.every(error => error.trim() === 'ValueError: I/O operation on closed file.')
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  // Not its exit: the end of its log is still to be read then.
  const gone = once(child, 'close')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs)
  await gone
  clearTimeout(timer)
}

async function createAdmin(url: string): Promise<Credentials> {
  const host = new URL(url).host
  const iam = async (params: Record<string, string>): Promise<string> => {
    const body = printQuery({ Version: '2010-05-08', ...params })
    const nobody = { accessKeyId: 'nobody', secretAccessKey: 'nothing' }
    const headers = signedHeaders(body, host, { region: 'us-east-1', service: 'iam' }, nobody)
    const reply = await httpCall(url, { method: 'POST', headers: { ...headers, 'content-type': formType }, body })
    if (reply.status !== 200) throw new Error(`moto answered ${reply.status}: ${reply.body}`)
    return reply.body.toString()
  }
  const UserName = 'muster-test-admin'
  const everything = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] }
  await iam({ Action: 'CreateUser', UserName })
  const PolicyDocument = JSON.stringify(everything)
  await iam({ Action: 'PutUserPolicy', UserName, PolicyName: 'everything', PolicyDocument })
  const keys = await iam({ Action: 'CreateAccessKey', UserName })
  const read = (name: string): string => new RegExp(`<${name}>([^<]+)`).exec(keys)?.[1] ?? ''
  return { accessKeyId: read('AccessKeyId'), secretAccessKey: read('SecretAccessKey') }
}
