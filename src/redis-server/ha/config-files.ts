/** The redis.conf of one server. It says nothing of primary and replica: that is decided at each start. */

import { createHash } from 'node:crypto'
import { maxLagMs } from '../../redis/inspect/info.ts'
import { failoverTimeoutMs, folderMark, type Host, majorityOf, type ReplicationGroup } from './replication-group.ts'
import type { Secrets, UserName } from './secrets.ts'

/** The text of redis.conf, the template of what `muster redis run` starts Redis with. */
export function redisConf(group: ReplicationGroup, host: Host, secrets: Secrets): string {
  return directives({
    ...network(group, host, group.port),
    aclfile: `"${folderMark}/users.acl"`,
    masteruser: 'replica',
    masterauth: secrets.passwords.replica,
    daemonize: 'no',
    loglevel: 'notice',
    // Without the append-only file, a primary that comes back quickly would empty the other servers.
    appendonly: 'yes',
    appendfsync: 'everysec',
    'aof-load-truncated': 'yes',
    save: '""',
    'maxmemory-policy': 'noeviction',
    // Jobs are hashes: packed, they take half of the memory. Redis 7 knows this name as well as 6.2 does.
    'hash-max-ziplist-value': '1024',
    // A primary without a replica takes no writes: no replica could acknowledge them.
    'min-replicas-to-write': '1',
    'min-replicas-max-lag': String(maxLagMs / 1000),
    'replica-announce-ip': host.address,
    'replica-announce-port': String(group.port),
    'repl-timeout': '5',
    'repl-ping-replica-period': '1',
    'repl-backlog-size': '64mb',
    'repl-diskless-sync': 'yes',
    'repl-diskless-sync-delay': '0',
    'tcp-keepalive': '15',
  })
}

/** What Redis and Sentinel share: where to listen, and the certificates. */
export function network(group: ReplicationGroup, host: Host, port: number): Record<string, string> {
  const listens = host.address.startsWith('127.') ? host.address : `${host.address} -127.0.0.1`
  const shared = { bind: listens, 'protected-mode': 'yes' }
  if (!group.tls) return { ...shared, port: String(port) }
  return {
    ...shared,
    port: '0',
    'tls-port': String(port),
    'tls-replication': 'yes',
    'tls-ca-cert-file': `"${folderMark}/tls/ca.crt"`,
    'tls-cert-file': `"${folderMark}/tls/server.crt"`,
    'tls-key-file': `"${folderMark}/tls/server.key"`,
    // A client authenticates by user and password.
    'tls-auth-clients': 'no',
    'tls-protocols': '"TLSv1.2 TLSv1.3"',
  }
}

export const directives = (all: Readonly<Record<string, string>>): string =>
  Object.entries(all)
    .map(([name, value]) => `${name} ${value}\n`)
    .join('')

export interface RunConf {
  readonly dataDir: string
  readonly maxMemoryBytes: number
  /** Unset: start as primary. */
  readonly replicaOf?: { readonly address: string; readonly port: number }
  /** Sentinel is not to promote this server yet. */
  readonly isBarred?: boolean
}

/** What a start adds to the template. Redis may rewrite the file it is given: the next start writes it again. */
export function runConf(template: string, files: RunFiles, run: RunConf): string {
  return (
    template +
    directives({
      dir: `"${run.dataDir}"`,
      maxmemory: String(run.maxMemoryBytes),
      ...ownFiles(files),
      ...(run.replicaOf && { replicaof: `${run.replicaOf.address} ${run.replicaOf.port}` }),
      ...(run.isBarred && { 'replica-priority': '0' }),
    })
  )
}

/** What one server of this host writes, and by what it is known. */
export interface RunFiles {
  readonly config: string
  readonly log: string
  readonly pid: string
}

export const ownFiles = ({ log, pid }: RunFiles): Record<string, string> => ({
  logfile: `"${log}"`,
  pidfile: `"${pid}"`,
  // A later supervisor knows the process by its configuration.
  'proc-title-template': '"{title} {config-file} {server-mode}"',
})

/**
 * The sentinel.conf of one server. Sentinel rewrites its file with all that it learns (who is primary, in which epoch,
 * who else is there), and what it has voted for; losing that could make two primaries. So `init` writes a template, and
 * each start carries over what Sentinel knew into a fresh copy of it.
 */

/** The text of the template; `primary` is whom to watch at the very first start. */
export function sentinelConf(group: ReplicationGroup, host: Host, primary: Host, secrets: Secrets): string {
  const { name } = group
  const quorum = majorityOf(group.hosts.length)
  return [
    directives({
      ...network(group, host, group.sentinelPort),
      aclfile: `"${folderMark}/sentinel-users.acl"`,
      daemonize: 'no',
      loglevel: 'notice',
      'sentinel resolve-hostnames': 'no',
      'sentinel announce-hostnames': 'no',
      'sentinel announce-ip': host.address,
      'sentinel announce-port': String(group.sentinelPort),
      'sentinel deny-scripts-reconfig': 'yes',
      'sentinel sentinel-user': 'peer',
      'sentinel sentinel-pass': secrets.passwords.peer,
    }),
    `sentinel monitor ${name} ${primary.address} ${group.port} ${quorum}\n`,
    `sentinel auth-user ${name} sentinel\n`,
    `sentinel auth-pass ${name} ${secrets.passwords.sentinel}\n`,
    `sentinel down-after-milliseconds ${name} ${group.downAfterMs}\n`,
    `sentinel failover-timeout ${name} ${failoverTimeoutMs(group.downAfterMs)}\n`,
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
export function mergeSentinelConf(template: string, state: string, group: ReplicationGroup): string {
  const addresses = new Set(group.hosts.map(({ address }) => address))
  const known = sentinelStateOf(state, group.name)
  const prefix = `sentinel monitor ${group.name} `
  // Of a group of another name, or of hosts that are no more, only the identity is worth keeping.
  const carries = known !== undefined && addresses.has(known.primary)
  const monitor = carries
    ? `${prefix}${known.primary} ${group.port} ${majorityOf(group.hosts.length)}`
    : template.split('\n').find(line => line.startsWith(prefix))
  const kept = state
    .split('\n')
    .filter(line => learnt.test(line))
    .filter(line => line.startsWith('sentinel myid ') || carries)
    .filter(line => !/ known-/.test(line) || addresses.has(line.split(' ')[3] ?? ''))
  const fresh = template
    .split('\n')
    .filter(line => line !== '')
    .map(line => (line.startsWith(prefix) ? (monitor ?? line) : line))
  return `${[...fresh, ...kept].join('\n')}\n`
}

/**
 * Who may do what on a server. `default` is off everywhere: a client needs a user name.
 *
 *   on Redis     muster    nodes: the keys of Muster, nothing that administers or endangers the server
 *                replica   the other servers: replication, nothing else
 *                sentinel  the Sentinels: watch, and change roles
 *   on Sentinel  muster    nodes: ask who is primary, be told when it changes
 *                peer      the other Sentinels: votes and news
 *   on both      operator  `muster redis` and people: everything
 *
 * The rules load in Redis 6.2, 7 and Valkey: they name no command that one of these lacks.
 */
type Passwords = Readonly<Record<UserName, string>>

/**
 * Off, so no client gets in as this one; but Redis reads its own append-only file as this one, and without these rights
 * it leaves out every transaction in it, which is what scripts and MULTI become there.
 */
const defaultOnRedis = 'user default off resetpass ~* &* +@all'
/** What INFO, ROLE and CONFIG GET tell is what nodes check at their start; the rest of @dangerous stays shut. */
const nodeOnRedis = '~{muster* &{muster* +@all -@admin -@dangerous +info +role +config|get'
const sentinelOnRedis =
  '&* -@all +multi +slaveof +replicaof +ping +exec +subscribe +psubscribe +config|rewrite +role +publish +info +client|setname +client|kill +script|kill'
/** Reads all that Sentinel knows. PUBLISH is news among Sentinels, which a node must not make up. */
const nodeOnSentinel = [
  '&* -@all +@connection +@pubsub -publish -@admin -@dangerous +info +role',
  ...['get-master-addr-by-name', 'master', 'masters', 'replicas', 'slaves', 'sentinels', 'ckquorum', 'myid'].map(
    name => `+sentinel|${name}`,
  ),
].join(' ')
const peerOnSentinel = '&* -@all +ping +publish +client|setname +sentinel|is-master-down-by-addr'

/** The users of Redis, as `users.acl`. */
export const redisUsers = (passwords: Passwords): string =>
  lines([
    defaultOnRedis,
    user('muster', passwords, nodeOnRedis),
    user('replica', passwords, '-@all +psync +replconf +ping'),
    user('sentinel', passwords, sentinelOnRedis),
    user('operator', passwords, '~* &* +@all'),
  ])

/** The users of Sentinel, as `sentinel-users.acl`. */
export const sentinelUsers = (passwords: Passwords): string =>
  lines([
    'user default off resetkeys resetchannels -@all',
    user('muster', passwords, nodeOnSentinel),
    user('peer', passwords, peerOnSentinel),
    user('operator', passwords, '~* &* +@all'),
  ])

/** Only the hash of a password stands in an ACL file. */
const user = (name: UserName, passwords: Passwords, rules: string): string =>
  `user ${name} on #${createHash('sha256').update(passwords[name]).digest('hex')} ${rules}`

const lines = (users: readonly string[]): string => users.map(line => `${line}\n`).join('')
