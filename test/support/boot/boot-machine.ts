/** Runs the user data of a node or the witness below a folder, with stubs for what would change the real machine. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, copyFile, cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { patienceMs } from '../until.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const stubbed = 'aws cfn-signal chown getent useradd dnf sysctl systemctl curl amazon-cloudwatch-agent-ctl'.split(' ')

export interface Machine {
  /** What is `/` on a real one. */
  readonly root: string
  /** Of the stubs: `calls`, `secrets/`, and files that change what they do. */
  readonly state: string
  file(path: string): string
  calls(): string[]
  /** Runs the user data. @returns its exit code and all that it said */
  boot(environment?: Readonly<Record<string, string>>): Promise<{ code: number | null; output: string }>
  /** Runs a script of deploy/boot, as one of its timers does. */
  run(script: string): Promise<{ code: number | null; output: string }>
}

export interface MachineOptions {
  readonly settings: Readonly<Record<string, string>>
  readonly bundle: string
  /** By the last part of the ARN. */
  readonly secrets: Readonly<Record<string, string>>
  /** What the Parameter Store has, by name. */
  readonly parameters?: Readonly<Record<string, string>>
  /** Its services really run, and it is asked whether they are ready. */
  readonly isAlive?: true
}

/** A bundle as nodes get it, with `cli` in place of dist/cli.js, or the built one. */
export async function makeBundle(t: Test, cli?: string): Promise<string> {
  const folder = await temporary(t)
  const content = join(folder, 'content')
  await mkdir(join(content, 'dist'), { recursive: true })
  await cp(join(root, 'deploy'), join(content, 'deploy'), { recursive: true })
  await copyFile(join(root, 'package.json'), join(content, 'package.json'))
  if (cli !== undefined) await copyFile(cli, join(content, 'dist/cli.js'))
  else {
    for (const part of ['dist', 'openapi']) await cp(join(root, part), join(content, part), { recursive: true })
    await symlink(join(root, 'node_modules'), join(content, 'node_modules'))
  }
  const file = join(folder, 'bundle.tgz')
  await run('tar', ['-czf', file, '-C', content, '.'], {})
  return file
}

export async function makeMachine(t: Test, options: MachineOptions): Promise<Machine> {
  const folder = await temporary(t)
  const [machineRoot, state] = [join(folder, 'root'), join(folder, 'state')]
  await mkdir(join(state, 'secrets'), { recursive: true })
  await mkdir(join(state, 'bin'))
  await mkdir(machineRoot)
  await copyFile(options.bundle, join(state, 'bundle.tgz'))
  const stub = join(root, 'test/support/boot/stub.sh')
  await chmod(stub, 0o755)
  for (const name of stubbed) {
    if (options.isAlive && name === 'curl') continue
    const program = options.isAlive && name === 'systemctl' ? join(root, 'test/support/boot/systemctl.mjs') : stub
    await symlink(program, join(state, 'bin', name))
  }
  for (const [name, secret] of Object.entries(options.secrets)) await writeFile(join(state, 'secrets', name), secret)
  await mkdir(join(state, 'parameters'))
  for (const [name, value] of Object.entries(options.parameters ?? {}))
    await writeFile(join(state, 'parameters', name), value)
  const settings = Object.entries(options.settings).map(([name, value]) => `${name}='${value}'`)
  const script = readFileSync(join(root, 'deploy/user-data/node.sh'), 'utf8').replace(
    '@@SETTINGS@@',
    settings.join('\n'),
  )
  await writeFile(join(state, 'user-data'), script)
  const environment = {
    PATH: `${join(state, 'bin')}:${process.env.PATH}`,
    ...{ MUSTER_ROOT: machineRoot, STUB_STATE: state, MUSTER_BOOT_PAUSE: '0', MUSTER_BOOT_WAIT: '1' },
  }
  return {
    root: machineRoot,
    state,
    file: path => readFileSync(join(machineRoot, path), 'utf8'),
    calls: () =>
      existsSync(join(state, 'calls')) ? readFileSync(join(state, 'calls'), 'utf8').trim().split('\n') : [],
    boot: (more = {}) => run('bash', [join(state, 'user-data')], { ...environment, ...more }),
    run: script => run('bash', [join(machineRoot, 'opt/muster/deploy/boot', script)], environment),
  }
}

async function temporary(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-boot-'))
  t.teardown(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }))
  return folder
}

async function run(program: string, args: readonly string[], environment: Readonly<Record<string, string>>) {
  const child = spawn(program, args, {
    env: { PATH: process.env.PATH, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += chunk))
  const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs)
  const [code] = (await once(child, 'close')) as [number | null]
  clearTimeout(timer)
  return { code, output }
}
