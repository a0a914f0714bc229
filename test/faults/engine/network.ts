/**
 * The network of a run: hosts with an address each, on one LAN whose links can be cut. Network namespaces where they are
 * allowed; else loopback addresses, where processes can be hit but no links.
 */
import { LoopbackNetwork } from './loopback.ts'
import { NamespaceNetwork, namespacesFault } from './namespaces.ts'

/**
 * a and b: a node, a Redis, a Sentinel. c: the witness. w1, w2: workers. clients: those that submit and collect; far: another
 * client, for the other side of a partition. control: looks at all of them.
 */
export const hostNames = ['a', 'b', 'c', 'w1', 'w2', 'clients', 'far', 'control'] as const
export type HostName = (typeof hostNames)[number]

export interface Network {
  readonly kind: 'namespaces' | 'loopback'
  /** Why there are no links to cut; undefined when there are. */
  readonly withoutLinksBecause: string | undefined
  addressOf(host: HostName): string
  /** The command as it must be started to run on that host. */
  commandOn(host: HostName, command: readonly string[]): string[]
  /** Link down: not one packet more to or from the host, and nobody is told. */
  cut(host: HostName): Promise<void>
  mend(host: HostName): Promise<void>
  /** What a host is after power came back: same addresses, no connection of before. Nothing may run on it. */
  rebuild(host: HostName): Promise<void>
  /**
   * Puts these hosts on a LAN of their own: they reach each other, and nobody else.
   * @param atOnce called in the moment from which nothing gets through
   */
  isolate(hosts: readonly HostName[], atOnce: () => void): Promise<void>
  /** All hosts on one LAN again. */
  rejoin(): Promise<void>
  /** Safe to call again. */
  remove(): Promise<void>
}

/** @param runName begins the names of all that is made */
export async function openNetwork(runName: string, kind?: Network['kind']): Promise<Network> {
  const fault = kind === 'loopback' ? 'loopback was asked for' : await namespacesFault(runName)
  if (fault === undefined) return await NamespaceNetwork.create(runName)
  if (kind === 'namespaces') throw new Error(`network namespaces cannot be used here: ${fault}`)
  return new LoopbackNetwork(fault)
}
