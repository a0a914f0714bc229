/**
 * Runs setup.sh as a user does, with the AWS CLI against the emulator. An `aws` first in PATH writes down what each process is
 * given as arguments, which everybody on a machine can read.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { Front } from './aws/front.ts'
import { until } from './until.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

export interface SetupRun {
  /** All that it wrote so far. */
  output(): string
  says(text: string | RegExp): Promise<void>
  kill(signal: NodeJS.Signals): void
  /** Waits for its end. @returns exit code or signal */
  ended(): Promise<number | string>
}

export interface Setup {
  readonly folder: string
  readonly bundle: string
  /** Starts it. @param variables more of the environment; undefined takes one away */
  start(args: readonly string[], variables?: Readonly<Record<string, string | undefined>>): SetupRun
  /** Runs it to its end. */
  run(
    args: readonly string[],
    variables?: Readonly<Record<string, string | undefined>>,
  ): Promise<{ code: number | string; output: string }>
  /** The arguments of all calls of `aws` so far, a line each. */
  calls(): string
}

/** What is sent to instances stands in a file: it is written down, too. */
const showCommands = (log: string): string =>
  `for arg; do case $arg in file://*/command.json) cat "\${arg#file://}" >>'${log}'; echo >>'${log}' ;; esac; done\n`

/** What it takes to run setup.sh against this front. The bundle is packed from dist/, once. */
export function prepareSetup(t: Test, front: Front): Setup {
  if (!existsSync(join(root, 'dist/cli.js'))) throw new Error('dist/ is missing: run "npm run build"')
  const folder = t.testdir()
  const bundle = join(folder, 'bundle.tgz')
  execFileSync(process.execPath, [join(root, 'scripts/make-bundle.mjs'), bundle], { stdio: 'pipe' })
  const bin = join(folder, 'bin')
  const log = join(folder, 'calls')
  // Where pyenv has put itself before it, that takes a third of each call: not the command is tested, but what is made of it.
  const find = 'case "$(command -v aws)" in */.pyenv/shims/*) pyenv which aws ;; *) command -v aws ;; esac'
  const aws = execFileSync('sh', ['-c', find], { encoding: 'utf8' }).trim()
  mkdirSync(bin)
  writeFileSync(log, '')
  writeFileSync(join(bin, 'aws'), `#!/bin/sh\nprintf '%s\\n' "$*" >>'${log}'\n${showCommands(log)}exec '${aws}' "$@"\n`)
  chmodSync(join(bin, 'aws'), 0o755)
  const running = new Set<ChildProcess>()
  t.teardown(async () => {
    for (const child of running) {
      const gone = once(child, 'exit')
      signalGroup(child, 'SIGKILL')
      await gone
    }
  })

  const environment: Record<string, string> = {
    ...{ PATH: [bin, dirname(process.execPath), process.env.PATH].join(':'), HOME: '/nonexistent', TMPDIR: folder },
    ...{ AWS_ENDPOINT_URL: front.url, AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_MAX_ATTEMPTS: '2' },
    ...{ AWS_REGION: 'us-east-1', AWS_EC2_METADATA_DISABLED: 'true', MUSTER_SETUP_PAUSE: '0.1' },
  }
  const start: Setup['start'] = (args, variables = {}) => {
    const env = Object.fromEntries(
      Object.entries({ ...environment, ...variables }).filter(([, value]) => value !== undefined),
    ) as Record<string, string>
    // A group of its own, as a shell gives to a job: Ctrl-C reaches all of it.
    const child = spawn('/bin/bash', [join(root, 'setup.sh'), ...args], {
      ...{ env, detached: true, cwd: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.add(child)
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        output += chunk
      })
    }
    const end = once(child, 'close').then(([code, signal]) => {
      running.delete(child)
      return (code ?? signal) as number | string
    })
    return {
      output: () => output,
      async says(text) {
        const isSaid = (): boolean => (typeof text === 'string' ? output.includes(text) : text.test(output))
        await until(() => isSaid() || !running.has(child))
        if (!isSaid()) throw new Error(`it never said ${text}:\n${output}`)
      },
      kill: signal => signalGroup(child, signal),
      ended: () => end,
    }
  }
  return {
    folder,
    bundle,
    start,
    async run(args, variables) {
      const run = start(args, variables)
      const code = await run.ended()
      return { code, output: run.output() }
    },
    calls: () => readFileSync(log, 'utf8'),
  }
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-(pid as number), signal)
  } catch {
    // It has just ended.
  }
}
