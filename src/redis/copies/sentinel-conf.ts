/**
 * The sentinel.conf of one copy. Sentinel rewrites its file with all that it learns (who is primary, in which epoch, who
 * else is there), and what it has voted for; losing that could make two primaries. So `init` writes a template, and
 * each start carries over what Sentinel knew into a fresh copy of it.
 */
import { type Copies, failoverTimeoutMs, folderMark, type Host, majorityOf } from './copies.ts'
import { directives, network } from './redis-conf.ts'
import type { Secrets } from './secrets.ts'

/** The text of the template; `primary` is whom to watch at the very first start. */
export function sentinelConf(copies: Copies, host: Host, primary: Host, secrets: Secrets): string {
  const { name } = copies
  const quorum = majorityOf(copies.hosts.length)
  return [
    directives({
      ...network(copies, host, copies.sentinelPort),
      aclfile: `"${folderMark}/sentinel-users.acl"`,
      daemonize: 'no',
      loglevel: 'notice',
      'sentinel resolve-hostnames': 'no',
      'sentinel announce-hostnames': 'no',
      'sentinel announce-ip': host.address,
      'sentinel announce-port': String(copies.sentinelPort),
      'sentinel deny-scripts-reconfig': 'yes',
      'sentinel sentinel-user': 'peer',
      'sentinel sentinel-pass': secrets.passwords.peer,
    }),
    `sentinel monitor ${name} ${primary.address} ${copies.port} ${quorum}\n`,
    `sentinel auth-user ${name} sentinel\n`,
    `sentinel auth-pass ${name} ${secrets.passwords.sentinel}\n`,
    `sentinel down-after-milliseconds ${name} ${copies.downAfterMs}\n`,
    `sentinel failover-timeout ${name} ${failoverTimeoutMs(copies.downAfterMs)}\n`,
    `sentinel parallel-syncs ${name} 1\n`,
  ].join('')
}

export interface SentinelState {
  /** Address of the primary that Sentinel last knew. */
  readonly primary: string
  readonly port: number
  readonly configEpoch: number
}

/** What a file that Sentinel wrote says of the primary; undefined when it says nothing of this name. */
export function sentinelStateOf(state: string, name: string): SentinelState | undefined {
  const [, primary, port] = new RegExp(`^sentinel monitor ${name} (\\S+) (\\d+) `, 'm').exec(state) ?? []
  const [, epoch] = new RegExp(`^sentinel config-epoch ${name} (\\d+)`, 'm').exec(state) ?? []
  return primary === undefined ? undefined : { primary, port: Number(port), configEpoch: Number(epoch ?? 0) }
}

/** Lines that are Sentinel's own; all others come from the template. */
const learnt = /^sentinel (myid|current-epoch|config-epoch|leader-epoch|known-replica|known-slave|known-sentinel) /

/**
 * A template, with what Sentinel knew when it last wrote `state`: the primary, its epochs and votes, and who else is
 * there, as far as `hosts` still names them.
 */
export function mergeSentinelConf(template: string, state: string, copies: Copies): string {
  const addresses = new Set(copies.hosts.map(({ address }) => address))
  const known = sentinelStateOf(state, copies.name)
  const mark = `sentinel monitor ${copies.name} `
  // Of a group of another name, or of hosts that are no more, only the identity is worth keeping.
  const carries = known !== undefined && addresses.has(known.primary)
  const monitor = carries
    ? `${mark}${known.primary} ${copies.port} ${majorityOf(copies.hosts.length)}`
    : template.split('\n').find(line => line.startsWith(mark))
  const kept = state
    .split('\n')
    .filter(line => learnt.test(line))
    .filter(line => line.startsWith('sentinel myid ') || carries)
    .filter(line => !/ known-/.test(line) || addresses.has(line.split(' ')[3] ?? ''))
  const fresh = template
    .split('\n')
    .filter(line => line !== '')
    .map(line => (line.startsWith(mark) ? (monitor ?? line) : line))
  return `${[...fresh, ...kept].join('\n')}\n`
}
