/**
 * Hosts as network namespaces. The switch between them is a namespace too: so nothing of it touches the machine's own network
 * (its routes, its firewall), and every run can use the same addresses.
 *
 *   <run>-switch:  bridge lan ── port-a, port-b, …      bridge island ── ports of those that are cut off together
 *   <run>-a:       eth0 10.77.0.1, the other end of port-a
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { type HostName, hostNames, type Network } from './network.ts'

const run = promisify(execFile)
const net = '10.77.0'

async function ip(...args: string[]): Promise<string> {
  const { stdout } = await run('ip', args, { timeout: 60_000 })
  return stdout
}

/** Why namespaces cannot be used here; undefined when they can. Tries it. */
export async function namespacesFault(runName: string): Promise<string | undefined> {
  const trial = `${runName}-trial`
  try {
    await ip('netns', 'add', trial)
    await ip('-n', trial, 'link', 'add', 'lan', 'type', 'bridge')
    await ip('netns', 'exec', trial, 'true')
    return undefined
  } catch (error) {
    const { code, stderr, message } = error as Error & { code?: unknown; stderr?: string }
    if (code === 'ENOENT') return 'there is no "ip" (package iproute2)'
    return (stderr || message).trim().split('\n')[0]
  } finally {
    await ip('netns', 'del', trial).catch(() => undefined)
  }
}

/** Removes the namespaces of a run, whoever made them. Nothing may run in them any more. */
export async function removeNamespaces(runName: string): Promise<void> {
  const listed = await ip('netns', 'list').catch(() => '')
  for (const line of listed.split('\n')) {
    const name = line.split(' ')[0] as string
    if (name.startsWith(`${runName}-`)) await ip('netns', 'del', name).catch(() => undefined)
  }
}

export class NamespaceNetwork implements Network {
  readonly kind = 'namespaces'
  readonly withoutLinksBecause = undefined
  readonly #runName: string

  private constructor(runName: string) {
    this.#runName = runName
  }

  static async create(runName: string): Promise<NamespaceNetwork> {
    const network = new NamespaceNetwork(runName)
    try {
      await network.#addSwitch()
      for (const host of hostNames) await network.#addHost(host)
    } catch (error) {
      await network.remove()
      throw error
    }
    return network
  }

  addressOf(host: HostName): string {
    return `${net}.${hostNames.indexOf(host) + 1}`
  }

  commandOn(host: HostName, command: readonly string[]): string[] {
    // It replaces itself by the command: the process id is the command's.
    return ['ip', 'netns', 'exec', this.#namespace(host), ...command]
  }

  async cut(host: HostName): Promise<void> {
    await ip('-n', this.#switch, 'link', 'set', `port-${host}`, 'down')
  }

  async mend(host: HostName): Promise<void> {
    await ip('-n', this.#switch, 'link', 'set', `port-${host}`, 'up')
  }

  async rebuild(host: HostName): Promise<void> {
    await ip('-n', this.#switch, 'link', 'del', `port-${host}`)
    await ip('netns', 'del', this.#namespace(host))
    await this.#addHost(host)
  }

  async isolate(hosts: readonly HostName[], atOnce: () => void): Promise<void> {
    // Down first, so that the moment of the cut is one for all of them.
    for (const host of hosts) await this.cut(host)
    atOnce()
    for (const host of hosts) await this.#plugInto('island', host)
    for (const host of hosts) await this.mend(host)
  }

  async rejoin(): Promise<void> {
    for (const host of hostNames) await this.#plugInto('lan', host)
  }

  async remove(): Promise<void> {
    await removeNamespaces(this.#runName)
  }

  get #switch(): string {
    return `${this.#runName}-switch`
  }

  #namespace(host: HostName): string {
    return `${this.#runName}-${host}`
  }

  async #addSwitch(): Promise<void> {
    await ip('netns', 'add', this.#switch)
    for (const bridge of ['lan', 'island']) {
      await ip('-n', this.#switch, 'link', 'add', bridge, 'type', 'bridge', 'forward_delay', '0')
      await ip('-n', this.#switch, 'link', 'set', bridge, 'up')
    }
  }

  async #addHost(host: HostName): Promise<void> {
    const namespace = this.#namespace(host)
    const port = `port-${host}`
    const number = String(hostNames.indexOf(host) + 1)
    // The same card after a power loss: its neighbours need not learn a new address.
    const mac = `02:77:00:00:00:${number.padStart(2, '0')}`
    await ip('netns', 'add', namespace)
    const peer = ['peer', 'name', 'eth0', 'address', mac, 'netns', namespace]
    await ip('-n', this.#switch, 'link', 'add', port, 'type', 'veth', ...peer)
    await ip('-n', this.#switch, 'link', 'set', port, 'master', 'lan', 'up')
    await ip('-n', namespace, 'address', 'add', `${this.addressOf(host)}/24`, 'dev', 'eth0')
    await ip('-n', namespace, 'link', 'set', 'eth0', 'up')
    await ip('-n', namespace, 'link', 'set', 'lo', 'up')
  }

  async #plugInto(bridge: 'lan' | 'island', host: HostName): Promise<void> {
    await ip('-n', this.#switch, 'link', 'set', `port-${host}`, 'master', bridge)
  }
}
