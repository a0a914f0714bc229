/**
 * The machine behind one instance: a folder for its disk, its metadata service, and its user data run as a process group.
 *
 *   waiting ─▶ booted ─▶ shutting-down ─▶ gone
 *      └──────────────────────▲ (never boots, or terminated before it did)
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Imds, type InstanceFacts } from './imds.ts'
import { killMachine, markVariable, processesOf, signalMachine } from './machine-processes.ts'

export type MachineState = 'waiting' | 'booted' | 'shutting-down' | 'gone'
/** Why a machine ended; `power-off` and `all-ended` come from within. */
export type MachineEnd = 'terminated' | 'interrupted' | 'crashed' | 'power-off' | 'all-ended'

export interface MachineOptions {
  /** Its own folder: `disk/` is MUSTER_ROOT, the rest belongs to the simulator. */
  readonly folder: string
  readonly facts: InstanceFacts
  readonly userData: Buffer
  readonly environment: Readonly<Record<string, string>>
  /** Between SIGTERM and SIGKILL, ms. */
  readonly graceMs: number
  /** Puts onto the disk what the machine image holds. */
  readonly prepareDisk: (root: string, facts: InstanceFacts) => void | Promise<void>
}

const stubFolder = fileURLToPath(new URL('./stubs/', import.meta.url))
/** Programs that must not touch the machine that the tests run on. */
const refused = 'apt apt-get dnf yum snap useradd usermod groupadd passwd mount umount swapon sysctl hostnamectl'.split(
  ' ',
)
/** EC2 keeps the last 64 KiB. */
const consoleBytes = 65_536

export class SimulatedInstance {
  readonly facts: InstanceFacts
  readonly imds: Imds
  /** MUSTER_ROOT: what would be `/`. */
  readonly root: string
  /** When it was first seen, when its user data started and when its last process was gone; ms since the epoch. */
  readonly seenAt = Date.now()
  bootedAt: number | undefined
  goneAt: number | undefined
  endedBy: MachineEnd | undefined
  /** The leader of its process group. */
  pid: number | undefined
  state: MachineState = 'waiting'
  readonly #options: MachineOptions
  #console = ''
  #mayHaveEnded = false
  #ending: Promise<void> | undefined

  constructor(options: MachineOptions) {
    this.#options = options
    this.facts = options.facts
    this.imds = new Imds(options.facts)
    this.root = join(options.folder, 'disk')
  }

  get id(): string {
    return this.facts.instanceId
  }

  /** All that it wrote, as the console shows it. */
  console(): string {
    return this.#console
  }

  /** Runs the user data. Does nothing when the machine ended meanwhile. */
  async boot(): Promise<void> {
    const { folder, facts, prepareDisk } = this.#options
    const script = join(folder, 'user-data')
    if (this.#isEnding()) return
    await this.imds.open()
    await layDisk(folder, this.root)
    await prepareDisk(this.root, facts)
    await writeFile(script, this.#options.userData)
    if (this.#isEnding()) {
      await this.imds.close()
      return await rm(folder, { recursive: true, force: true })
    }
    this.state = 'booted'
    this.bootedAt = Date.now()
    this.#write(`[simulator] ${this.id} boots\n`)
    if (!this.#options.userData.toString('latin1').startsWith('#!')) {
      // As cloud-init has it: the machine runs, and does nothing.
      this.#write('[simulator] the user data is not a script\n')
      return
    }
    const base = this.#environment()
    // What systemd gives to a service: nothing of what the user data exported.
    const lines = Object.entries(base).map(([name, value]) => `${name}=${value}`)
    await writeFile(join(folder, 'environment'), `${lines.join('\n')}\n`)
    const child = spawn('bash', [script], {
      cwd: this.root,
      env: { ...base, MUSTER_ROOT: this.root },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.pid = child.pid
    child.stdout.on('data', (chunk: Buffer) => this.#write(chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => this.#write(chunk.toString()))
    child.on('exit', (code, signal) => this.#write(`[simulator] the user data ended with ${code ?? signal}\n`))
    // All who hold the console are gone; others may be left.
    child.on('close', () => {
      this.#mayHaveEnded = true
    })
    child.on('error', error => this.#write(`[simulator] the user data does not run: ${error.message}\n`))
  }

  /** What came from within since the last look: somebody powered the machine off, or its last process ended. */
  endFromWithin(): 'power-off' | 'all-ended' | undefined {
    if (this.state !== 'booted') return undefined
    if (existsSync(join(this.#options.folder, 'power-off'))) return 'power-off'
    return this.#mayHaveEnded && processesOf(this.#mark).length === 0 ? 'all-ended' : undefined
  }

  /** SIGTERM to all, SIGKILL to who is left after the grace. Resolves when nobody is; calling twice is safe. */
  async shutDown(why: MachineEnd): Promise<void> {
    this.#ending ??= this.#end(why, this.#options.graceMs)
    await this.#ending
  }

  /** SIGKILL to all, at once; also in the middle of shutting down. */
  async kill(why: MachineEnd): Promise<void> {
    signalMachine(this.#mark, 'SIGKILL')
    this.#ending ??= this.#end(why, 0)
    await this.#ending
  }

  signal(signal: NodeJS.Signals): void {
    signalMachine(this.#mark, signal)
  }

  async #end(why: MachineEnd, graceMs: number): Promise<void> {
    this.state = 'shutting-down'
    this.endedBy = why
    const deadline = Date.now() + graceMs
    if (graceMs > 0) signalMachine(this.#mark, 'SIGTERM')
    while (Date.now() < deadline && processesOf(this.#mark).length > 0) await delay(20)
    await killMachine(this.#mark)
    await this.imds.close()
    await rm(this.#options.folder, { recursive: true, force: true })
    this.#write(`[simulator] ${this.id} is off: ${why}\n`)
    this.state = 'gone'
    this.goneAt = Date.now()
  }

  #isEnding(): boolean {
    return this.state !== 'waiting'
  }

  get #mark(): string {
    return `${this.#options.folder}/`
  }

  #environment(): Record<string, string> {
    return {
      PATH: `${join(this.#options.folder, 'bin')}:${process.env.PATH}`,
      HOME: join(this.root, 'root'),
      TMPDIR: join(this.root, 'tmp'),
      LANG: 'C.UTF-8',
      AWS_EC2_METADATA_SERVICE_ENDPOINT: this.imds.url,
      [markVariable]: this.#mark,
      ...this.#options.environment,
    }
  }

  #write(text: string): void {
    this.#console = (this.#console + text).slice(-consoleBytes)
  }
}

/** An empty disk, and the programs that must never be the real ones: first in PATH, and where units look for them. */
async function layDisk(folder: string, root: string): Promise<void> {
  const bin = join(folder, 'bin')
  for (const path of [bin, ...['root', 'tmp', 'sbin', 'usr/sbin', 'usr/bin', 'etc'].map(name => join(root, name))]) {
    await mkdir(path, { recursive: true })
  }
  for (const stub of await readdir(stubFolder)) {
    const name = stub.replace(/\.sh$/, '')
    await copyFile(join(stubFolder, stub), join(bin, name))
    await chmod(join(bin, name), 0o755)
  }
  for (const other of ['poweroff', 'halt', 'reboot']) await symlink('shutdown', join(bin, other))
  for (const other of refused) await symlink('refused', join(bin, other))
  for (const name of await readdir(bin)) {
    for (const place of ['sbin', 'usr/sbin', 'usr/bin']) await symlink(join(bin, name), join(root, place, name))
  }
}
